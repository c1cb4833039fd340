"""A worker does its job once, whatever is killed, hangs, is cancelled or is short of memory."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from dafne_dante.config import Settings, WorkerSettings
from dafne_dante.errors import TrainingError
from dafne_dante.plugin.improve import CHECKPOINT, improve
from dafne_dante.plugin.job_holder import end_holder, own_holder
from dafne_dante.plugin.job_run import results_of
from dafne_dante.plugin.job_states import JobOptions
from dafne_dante.plugin.jobs import MAX_ATTEMPTS, open_jobs
from dafne_dante.plugin.worker import work
from dafne_dante.plugin.worker_events import EVENTS_FILE, MAX_BYTES, EventFile, EventWriter, parse_event
from dafne_dante.plugin.worker_limits import threads_for
from dafne_dante.plugin.worker_process import WorkerProcess

TYPE = "Thigh"
PATIENCE_S = 60


@pytest.fixture
def settings(tmp_path):
    return Settings(folder=tmp_path / "configuration", worker=WorkerSettings(threads=1))


@pytest.fixture
def queue(settings):
    return open_jobs(settings)


@pytest.fixture
def add(queue, trained):
    """Queue a job that improves the tiny model from the new scanner's cases."""

    def add(**changes):
        options = {"base": str(trained / "base.model"), "data": (str(trained / "new"),), "epochs": 2, **changes}
        return queue.add(TYPE, "button", JobOptions(**options))

    return add


def work_here(job, settings, queue, **options):
    """Do a job in this process: its state and events."""
    stream = io.StringIO()
    state = work(job.job_id, settings, queue, EventWriter(stream), **options)
    return state, [json.loads(line) for line in stream.getvalue().splitlines()]


def out_of(queue, job):
    return results_of(queue.folder_of(job.job_id))


def wait_for(worker, kind, *, also=()):
    """The events up to the first of a kind."""
    found, until_s = list(also), time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        found += worker.take()
        if any(event.kind == kind for event in found):
            return found
        time.sleep(0.02)
    raise AssertionError(f"no {kind} in {found}")


def finish(worker):
    """Every event until the job is over."""
    assert worker.wait(PATIENCE_S)
    return worker.take()


def test_a_job_is_done_and_tells_how_far_it_is(add, settings, queue):
    job = add()
    state, events = work_here(job, settings, queue)
    assert state == "done"
    kinds = [event["event"] for event in events]
    assert kinds[0] == "started"
    assert kinds[-2:] == ["result", "ended"]
    epochs = [event for event in events if event["event"] == "epoch"]
    assert [(event["epoch"], event["epochs"]) for event in epochs] == [(1, 2), (2, 2)]
    assert all(0 <= event["dice"] <= 1 and event["left_s"] >= 0 for event in epochs)
    assert epochs[-1]["left_s"] < epochs[0]["left_s"]
    done = queue.get(job.job_id)
    assert (done.state, done.attempts) == ("done", 1)
    assert (out_of(queue, job) / "update.delta").exists()
    with pytest.raises(TrainingError, match="found that it is done"):
        work(job.job_id, settings, queue, EventWriter(io.StringIO()))


def test_a_fault_ends_the_job_and_says_why(add, settings, queue, tmp_path):
    (tmp_path / "empty").mkdir()
    state, events = work_here(add(data=(str(tmp_path / "empty"),)), settings, queue)
    assert (state, events[-1]["state"]) == ("failed", "failed")
    assert "expected" in events[-1]["told"]
    assert str(tmp_path) not in events[-1]["told"]


class ShortOfMemory:
    """Improves, but only with as little as a test says."""

    def __init__(self, *faults):
        self.faults, self.seen = list(faults), []

    def __call__(self, request, *arguments, **options):
        self.seen.append((request.thrift.batch_size, request.thrift.halvings, os.environ.get("DAFNE_DANTE_DEVICE")))
        if self.faults:
            raise self.faults.pop(0)
        return improve(request, *arguments, **options)


def test_short_memory_halves_the_batch_then_the_patch_and_says_so(add, settings, queue):
    refused = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
    improving = ShortOfMemory(torch.OutOfMemoryError(), MemoryError(), RuntimeError(refused))
    job = add()
    state, events = work_here(job, settings, queue, improving=improving)
    assert state == "done"
    assert improving.seen == [(2, 0, None), (1, 0, None), (1, 1, None), (1, 2, None)]
    words = [event["words"] for event in events if event["event"] == "fallback"]
    assert (len(words), "batches of 1 patch" in words[0]) == (3, True)
    assert words[2] == "memory was too small: batches of 1 patch with 25 % of the voxels"
    remembered = json.loads((queue.folder_of(job.job_id) / "thrift.json").read_text())
    assert remembered == {"batch_size": 1, "halvings": 2, "on_cpu": False}
    assert json.loads(queue.get(job.job_id).progress)["fallback"] == words[2]


def test_the_processor_is_the_last_to_be_tried(add, settings, queue, monkeypatch):
    from dafne_dante.plugin import job_run

    monkeypatch.setattr(job_run, "choose_device", lambda: torch.device("cuda"))
    improving = ShortOfMemory(*(torch.OutOfMemoryError() for _ in range(5)))
    state, events = work_here(add(epochs=1), settings, queue, improving=improving)
    assert state == "done"
    assert improving.seen[-1] == (2, 0, "cpu")
    words = [event["words"] for event in events if event["event"] == "fallback"]
    assert words[-1] == "graphics memory was too small: batches of 2 patches on the processor"
    assert "DAFNE_DANTE_DEVICE" not in os.environ


def test_too_little_memory_for_anything_is_told(add, settings, queue):
    improving = ShortOfMemory(*(torch.OutOfMemoryError() for _ in range(9)))
    state, events = work_here(add(), settings, queue, improving=improving)
    assert state == "failed"
    assert len(improving.seen) == 5
    assert "expected memory for batches of 1 patch with 12.5 % of the voxels" in events[-1]["told"]


def test_a_fault_of_another_kind_is_no_lack_of_memory(add, settings, queue):
    job = add()
    with pytest.raises(RuntimeError, match="ours"):
        work_here(job, settings, queue, improving=ShortOfMemory(RuntimeError("ours")))
    assert queue.get(job.job_id).state == "running", "it is taken over when this process is gone"


def test_a_worker_that_died_after_its_results_trains_no_more(add, settings, queue, monkeypatch):
    job = add(epochs=1)
    with monkeypatch.context() as patched:
        patched.setattr(type(queue), "finish", lambda *_arguments, **_options: None)
        work_here(job, settings, queue)
    delta = (out_of(queue, job) / "update.delta").read_bytes()
    left = queue.get(job.job_id)
    monkeypatch.setattr("dafne_dante.plugin.job_holder.SystemCensus.is_gone", lambda self, holder, silent_s: True)
    state, events = work_here(left, settings, queue, improving=ShortOfMemory(MemoryError()))
    assert state == "done"
    assert not [event for event in events if event["event"] == "epoch"]
    assert (out_of(queue, job) / "update.delta").read_bytes() == delta


def test_new_cases_begin_a_training_anew_that_was_interrupted(add, settings, queue, monkeypatch):
    job = add()
    interrupted = []

    def stopping(request, *arguments, progress, **options):
        def epoch(record, epochs):
            interrupted.append(record.epoch)
            raise KeyboardInterrupt

        from dataclasses import replace

        return improve(request, *arguments, progress=replace(progress, epoch=epoch), **options)

    with pytest.raises(KeyboardInterrupt):
        work_here(job, settings, queue, improving=stopping)
    checkpoint = out_of(queue, job) / CHECKPOINT
    assert checkpoint.exists()
    monkeypatch.setattr("dafne_dante.plugin.job_holder.SystemCensus.is_gone", lambda self, holder, silent_s: True)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    state, events = work_here(job, settings, queue)
    assert state == "done"
    assert any("anew" in event.get("words", "") for event in events)
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [1, 2]


def test_a_killed_worker_is_replaced_and_its_job_resumed_to_one_result(add, settings, queue):
    job = add(epochs=12)
    worker = WorkerProcess(queue, job.job_id, settings)
    worker.start()
    seen = wait_for(worker, "epoch")
    [pid] = {event.values["pid"] for event in seen if event.kind == "epoch"}
    assert psutil.Process(pid).nice() == 19
    os.kill(pid, signal.SIGKILL)
    seen += finish(worker)
    starts = [event.values["attempt"] for event in seen if event.kind == "started"]
    assert starts == [1, 2]
    epochs = [event.values["epoch"] for event in seen if event.kind == "epoch"]
    assert epochs[-1] == 12
    assert len(epochs) <= 13, "all but at most one epoch were kept"
    assert [event.kind for event in seen].count("result") == 1
    assert queue.get(job.job_id).state == "done"
    assert {path.name for path in out_of(queue, job).iterdir()} == {
        *("improved.model", "update.delta", "history.csv", "summary.json", "report.html")
    }


@pytest.mark.parametrize("keep", [False, True])
def test_a_real_job_is_cancelled_within_five_seconds(add, settings, queue, keep):
    job = add(epochs=5000)
    worker = WorkerProcess(queue, job.job_id, settings)
    worker.start()
    seen = wait_for(worker, "epoch")
    begin_s = time.monotonic()
    assert worker.cancel(keep=keep).state == "running"
    assert time.monotonic() - begin_s < 0.5, "the caller is not held up"
    if keep:  # as when an epoch takes long: the worker is ended, and another one keeps what it had learnt
        end_holder(queue.get(job.job_id).holder)
    seen += finish(worker)
    took_s = time.monotonic() - begin_s
    state = queue.get(job.job_id)
    if keep:
        assert (state.state, state.told[:7], state.attempts) == ("done", "stopped", 2)
        assert [event.kind for event in seen].count("result") == 1
        assert (out_of(queue, job) / "update.delta").exists()
    else:
        assert took_s < 5
        assert state.state == "cancelled"
        assert not out_of(queue, job).exists()


FAKE = """
import sys, time
from pathlib import Path
from dafne_dante.plugin.job_holder import end_holder, own_holder
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.worker_events import EventWriter
queue = JobQueue(Path(sys.argv[1]))
events, holder = EventWriter(sys.stdout), own_holder()
job = queue.claim(sys.argv[-1], holder)
events.tell("started", attempt=job.attempts)
if job.attempts < int(sys.argv[2]):
    time.sleep(600)
time.sleep(float(sys.argv[3]))
queue.finish(job.job_id, holder, "done", "")
events.tell("ended", state="done")
"""


def fake(settings, *, works_at=1, after_s=0.0):
    """The command of a worker that hangs until its n-th try."""
    folder = str(settings.folder / "jobs")
    return [sys.executable, "-c", FAKE, folder, str(works_at), str(after_s)]


def test_a_worker_that_hangs_is_ended_and_replaced(add, settings, queue):
    job = add()
    worker = WorkerProcess(queue, job.job_id, settings, command=fake(settings, works_at=3), silence_s=0.5)
    worker.start()
    assert [event.values["attempt"] for event in finish(worker) if event.kind == "started"] == [1, 2, 3]
    assert queue.get(job.job_id).state == "done"


def test_a_worker_that_hangs_for_ever_is_given_up(add, settings, queue):
    job = add()
    command = [*fake(settings, works_at=99)]
    worker = WorkerProcess(queue, job.job_id, settings, command=command, silence_s=0.3)
    worker.start()
    finish(worker)
    ended = queue.get(job.job_id)
    assert (ended.state, ended.attempts) == ("failed", MAX_ATTEMPTS + 1)


def test_a_hanging_worker_is_cancelled_within_five_seconds(add, settings, queue):
    job = add()
    worker = WorkerProcess(queue, job.job_id, settings, command=fake(settings, works_at=99))
    worker.start()
    wait_for(worker, "started")
    begin_s = time.monotonic()
    worker.cancel()
    finish(worker)
    assert time.monotonic() - begin_s < 5
    assert queue.get(job.job_id).state == "cancelled"


def test_a_worker_that_cannot_begin_is_over(add, settings, queue):
    worker = WorkerProcess(queue, add().job_id, settings, command=[sys.executable, "-c", "raise SystemExit(1)"])
    worker.start()
    assert finish(worker) == []
    assert queue.jobs()[0].state == "queued", "another try may do better"


PARENT = """
import os, signal, sys
from pathlib import Path
from dafne_dante.config import Settings
from dafne_dante.plugin.jobs import open_jobs
from dafne_dante.plugin.worker_process import WorkerProcess
import time
settings = Settings(folder=Path(sys.argv[1]))
queue = open_jobs(settings)
worker = WorkerProcess(queue, sys.argv[2], settings, command=sys.argv[3:])
worker.start()
while queue.get(sys.argv[2]).state == "queued":
    time.sleep(0.02)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_job_goes_on_when_its_parent_is_killed_and_another_one_attaches(add, settings, queue):
    job = add()
    command = [sys.executable, "-c", PARENT, str(settings.folder), job.job_id, *fake(settings, after_s=2.0)]
    assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == -signal.SIGKILL
    assert queue.get(job.job_id).state == "running"
    worker = WorkerProcess(queue, job.job_id, settings, command=fake(settings))
    worker.attach()
    assert [event.kind for event in finish(worker)] == ["started", "ended"]
    assert (queue.get(job.job_id).state, queue.get(job.job_id).attempts) == ("done", 1)


def test_two_workers_for_one_job_are_one(add, settings, queue):
    job = add()
    workers = [WorkerProcess(queue, job.job_id, settings, command=fake(settings, after_s=0.5)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        finish(worker)
    assert (queue.get(job.job_id).state, queue.get(job.job_id).attempts) == ("done", 1)


def test_a_worker_stops_when_its_job_is_another_ones(add, settings, queue, monkeypatch):
    job = add(epochs=5000)
    monkeypatch.setattr("dafne_dante.plugin.job_holder.SystemCensus.is_gone", lambda self, holder, silent_s: True)

    def stolen(request, *arguments, **options):
        queue.claim(job.job_id, own_holder())
        return improve(request, *arguments, **options)

    with pytest.raises(TrainingError, match="taken over"):
        work_here(job, settings, queue, improving=stolen)
    assert queue.get(job.job_id).state == "running"


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"{}", b"\xff", b'{"event": "epoch", "at": true}', b'{"event": "x", "at": 1}', b"[" * 60_000,
     b'{"event": "epoch", "at": "1"}', b'{"event": ["epoch"], "at": 1}'],
)  # fmt: skip
def test_a_line_that_is_no_event_is_left_out(line):
    assert parse_event(line) is None


def test_a_file_of_events_is_followed_line_by_line(tmp_path):
    path = tmp_path / EVENTS_FILE
    follower = EventFile(path)
    assert follower.take() == []
    with path.open("w") as stream:
        writer = EventWriter(stream, clock=lambda: 5.0)
        writer.tell("stage", words="one")
        stream.write('{"event": "stage", "at"')
        stream.flush()
        assert [(event.at_s, event.values) for event in follower.take()] == [(5.0, {"words": "one"})]
        stream.write(": 6}\n" + "x" * (1 << 19))
        stream.flush()
        assert [event.at_s for event in follower.take() + follower.take() + follower.take()] == [6.0]
        stream.write("\n")
        writer.tell("ended")
    assert [event.kind for event in follower.take()] == ["ended"]
    assert EventFile(path, from_end=True).take() == []


def test_events_fill_no_disk_and_a_broken_pipe_stops_nothing():
    stream = io.StringIO()
    writer = EventWriter(stream)
    for _ in range(200):
        writer.tell("stage", words="x" * 40_000)
    writer.tell("ended")
    assert len(stream.getvalue()) < MAX_BYTES + 50_000
    assert json.loads(stream.getvalue().splitlines()[-1])["event"] == "ended"
    stream.close()
    writer.tell("ended")


def test_threads_are_half_of_the_cores_or_what_is_set():
    assert threads_for(WorkerSettings(threads=3)) == 3
    assert 1 <= threads_for(WorkerSettings()) <= max(1, (os.cpu_count() or 2) // 2)
