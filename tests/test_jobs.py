"""Jobs are debounced, held by one process each, taken over from the dead, and ended once."""

import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace

import pytest
from queues import OTHER, TYPE, WORKER, Jobs

from dafne_dante.config import Settings
from dafne_dante.errors import SettingsError, StorageError, TrainingError
from dafne_dante.plugin.job_holder import SystemCensus, end_holder, own_holder
from dafne_dante.plugin.job_states import JobOptions, options_from_json, options_to_json
from dafne_dante.plugin.jobs import MAX_ATTEMPTS, JobQueue, jobs_exist, jobs_folder, open_jobs
from dafne_dante.plugin.jobs_database import DATABASE_FILE


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path / "jobs")


def test_a_job_comes_back_as_it_was_asked_for(jobs):
    options = JobOptions("base.model", ("one", "two"), "full", 3, 7, upload=True, server="https://a.example/")
    asked = jobs.queue.add(TYPE, "button", options)
    assert jobs.queue.jobs() == [asked]
    assert jobs.queue.find(asked.job_id[:8]) == asked
    assert asked.options == options
    assert asked.not_before_s == jobs.clock()


def test_corrections_are_put_off_until_two_minutes_after_the_last(jobs):
    first = jobs.queue.add(TYPE, "saved")
    for _ in range(5):
        jobs.clock.now_s += 100
        again = jobs.queue.add(TYPE, "saved")
        assert (again.job_id, again.not_before_s) == (first.job_id, jobs.clock() + 120)
        assert jobs.queue.startable() == []
    jobs.clock.now_s += 119.9
    assert jobs.queue.startable() == []
    jobs.clock.now_s += 0.2
    assert [job.job_id for job in jobs.queue.startable()] == [first.job_id]
    assert len(jobs.queue.jobs()) == 1


def test_models_do_not_wait_for_each_other(jobs):
    one, other = jobs.queue.add("Thigh", "saved"), jobs.queue.add("Leg", "saved")
    assert one.job_id != other.job_id
    jobs.clock.now_s += 121
    assert len(jobs.queue.startable()) == 2


def test_a_person_is_not_made_to_wait_by_corrections(jobs):
    saved = jobs.queue.add(TYPE, "saved", JobOptions(method="full"))
    button = jobs.queue.add(TYPE, "button", JobOptions(epochs=1))
    assert (button.job_id, button.trigger, button.options.epochs) == (saved.job_id, "button", 1)
    assert [job.job_id for job in jobs.queue.startable()] == [saved.job_id]
    later = jobs.queue.add(TYPE, "saved")
    assert later == button, "a correction neither weakens nor puts off what a person asked for"


def test_a_correction_while_a_job_runs_makes_another_that_waits_for_it(jobs):
    running = jobs.running()
    jobs.queue.add(TYPE, "saved")
    jobs.clock.now_s += 200
    assert jobs.queue.startable() == []
    jobs.queue.finish(running.job_id, WORKER, "done", "", learned_until_ns=5)
    assert [job.trigger for job in jobs.queue.startable()] == ["saved"]
    assert jobs.queue.last_done(TYPE).learned_until_ns == 5


def test_a_clock_that_is_set_back_holds_no_job(jobs):
    jobs.queue.add(TYPE, "saved")
    jobs.clock.now_s -= 86400
    assert len(jobs.queue.startable()) == 1


def test_one_holds_a_job_and_the_next_gets_it_when_that_one_is_gone(jobs):
    job = jobs.running()
    assert jobs.queue.claim(job.job_id, OTHER) is None
    jobs.clock.now_s += 86400
    assert jobs.queue.claim(job.job_id, OTHER) is None, "silence alone is no death: the machine may have slept"
    jobs.census.gone.add(WORKER)
    assert [one.job_id for one in jobs.queue.startable()] == [job.job_id]
    taken = jobs.queue.claim(job.job_id, OTHER)
    assert (taken.holder, taken.attempts) == (OTHER, 2)
    for call in (lambda: jobs.queue.beat(job.job_id, WORKER), lambda: _finish(jobs, job, WORKER)):
        with pytest.raises(TrainingError, match="taken over"):
            call()
    assert _finish(jobs, job, OTHER).state == "done"
    with pytest.raises(TrainingError, match="found that it is done"):
        jobs.queue.claim(job.job_id, WORKER)


def _finish(jobs, job, holder):
    return jobs.queue.finish(job.job_id, holder, "done", "improved")


def test_a_job_that_kills_its_workers_is_given_up(jobs):
    job = jobs.running()
    jobs.census.gone.add(WORKER)
    for _ in range(MAX_ATTEMPTS - 1):
        assert jobs.queue.claim(job.job_id, WORKER) is not None
    with pytest.raises(TrainingError, match="given up"):
        jobs.queue.claim(job.job_id, WORKER)
    assert jobs.queue.get(job.job_id).state == "failed"


def test_who_is_silent_is_told(jobs):
    job = jobs.running()
    jobs.clock.now_s += 100
    assert jobs.queue.silent(200) == []
    assert [one.job_id for one in jobs.queue.silent(50)] == [job.job_id]
    jobs.queue.beat(job.job_id, WORKER)
    assert jobs.queue.silent(50) == []


def test_a_wish_reaches_the_holder_with_its_next_beat(jobs):
    job = jobs.running()
    assert jobs.queue.beat(job.job_id, WORKER, {"epoch": 1}) == ""
    jobs.queue.ask_to_stop(job.job_id, "keep")
    assert jobs.queue.beat(job.job_id, WORKER) == "keep"
    assert jobs.queue.get(job.job_id).progress == '{"epoch": 1}'
    assert jobs.queue.close_left(job.job_id, "x").state == "running", "its holder lives"
    jobs.census.gone.add(WORKER)
    assert jobs.queue.close_left(job.job_id, "x").state == "cancelled"


def test_a_queued_job_is_cancelled_at_once_and_once(jobs):
    job = jobs.queue.add(TYPE, "saved")
    assert jobs.queue.ask_to_stop(job.job_id).state == "cancelled"
    with pytest.raises(TrainingError, match="nothing to cancel"):
        jobs.queue.ask_to_stop(job.job_id)
    with pytest.raises(TrainingError, match="found that it is cancelled"):
        jobs.queue.claim(job.job_id, WORKER)
    assert jobs.queue.add(TYPE, "saved").job_id != job.job_id


@pytest.mark.parametrize("name", ["", "0000", "zzzz", "-"])
def test_a_name_of_no_job_is_refused(jobs, name):
    jobs.queue.add(TYPE, "saved")
    with pytest.raises(TrainingError, match=r"found \d such jobs"):
        jobs.queue.find(name)


@pytest.mark.parametrize("model_type", ["", "  ", "a\n", "x" * 201, "\x1b[31m"])
def test_a_type_that_can_be_none_is_refused(jobs, model_type):
    with pytest.raises(SettingsError, match="model type"):
        jobs.queue.add(model_type, "saved")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "[" * 100_000, '{"base": 1}'),
        options_to_json(JobOptions()).replace('"seed": 0', '"seed": true'),
        options_to_json(JobOptions()).replace("[]", '["a", 1]'),
    ],
)
def test_options_of_a_damaged_row_are_refused(text):
    with pytest.raises(StorageError, match="options of a job"):
        options_from_json(text)


def test_options_that_fill_the_disk_are_refused(jobs):
    with pytest.raises(SettingsError, match="64 KiB"):
        jobs.queue.add(TYPE, "button", JobOptions(data=("x" * 70_000,)))
    assert jobs.queue.jobs() == []


def _claim(folder, job_id, barrier, answers):
    queue = JobQueue(folder)
    barrier.wait()
    answers.put(queue.claim(job_id, own_holder()) is not None)
    barrier.wait()  # whoever has it lives until both have asked


def test_of_two_processes_one_gets_the_job_fifty_times(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = JobQueue(tmp_path)
    for number in range(50):
        job = queue.add(f"type {number}", "button")
        barrier, answers = context.Barrier(2), context.Queue()
        both = [context.Process(target=_claim, args=(tmp_path, job.job_id, barrier, answers)) for _ in range(2)]
        for one in both:
            one.start()
        assert sorted(answers.get(timeout=30) for _ in both) == [False, True]
        for one in both:
            one.join(timeout=30)
    assert [job.attempts for job in queue.jobs()] == [1] * 50


HOLDING = """
import sys, time
from pathlib import Path
from dafne_dante.plugin.job_holder import own_holder
from dafne_dante.plugin.jobs import JobQueue
queue = JobQueue(Path(sys.argv[1]))
with queue.working("Thigh"):
    holder = own_holder()
    queue.claim(sys.argv[2], holder)
    print(holder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path):
    """A queue, its job, and another process that holds it."""
    queue = JobQueue(tmp_path)
    job = queue.add(TYPE, "button")
    command = [sys.executable, "-c", HOLDING, str(tmp_path), job.job_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        holder = process.stdout.readline().strip()
        yield queue, job, process, holder
        process.kill()


def test_a_killed_process_leaves_its_job_and_its_lock(held):
    queue, job, process, holder = held
    assert queue.claim(job.job_id, own_holder()) is None
    with pytest.raises(TrainingError, match="found another process"), queue.working(TYPE, wait_s=0.1):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert SystemCensus().is_gone(holder, 0.0)
    with queue.working(TYPE, wait_s=1):
        assert queue.claim(job.job_id, own_holder()).attempts == 2


def test_a_process_that_has_the_number_of_a_dead_one_is_not_the_holder(held):
    _, _, process, holder = held
    host, pid, start_ms, token = holder.split()
    census = SystemCensus()
    assert not census.is_gone(holder, 1e9)
    assert census.is_gone(f"{host} {pid} {int(start_ms) - 5000} {token}", 0.0)
    assert not end_holder(own_holder()), "nobody ends itself"
    assert not census.is_gone(f"elsewhere {pid} {start_ms} {token}", 60.0)
    assert census.is_gone(f"elsewhere {pid} {start_ms} {token}", 7200.0)
    assert end_holder(holder)
    assert process.poll() is not None


@pytest.mark.parametrize("holder", ["", "a b c d", "a 1", f"x {'9' * 40} 1 0", "a \u0661 1 0"])
def test_a_holder_that_cannot_be_is_gone(holder):
    assert SystemCensus().is_gone(holder, 0.0)


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_the_folder_is_for_its_owner_only(jobs):
    jobs.queue.add(TYPE, "saved")
    assert stat.S_IMODE(jobs.folder.stat().st_mode) == 0o700


def test_nothing_is_there_before_a_job_is(tmp_path):
    settings = Settings(folder=tmp_path)
    assert not jobs_exist(settings)
    open_jobs(settings)
    assert jobs_exist(settings)
    assert jobs_folder(settings) == tmp_path / "jobs"


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "jobs").write_text("")
    with pytest.raises(StorageError, match="cannot create the folder jobs"):
        JobQueue(tmp_path / "jobs")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom the disk refuses")
def test_a_folder_that_cannot_be_written_is_told(jobs):
    jobs.queue.add(TYPE, "saved")
    (jobs.folder / DATABASE_FILE).chmod(0o400)
    with pytest.raises(StorageError, match=DATABASE_FILE):
        jobs.queue.add(TYPE, "saved")


def test_a_full_disk_is_told_and_changes_nothing(jobs, monkeypatch):
    job = jobs.queue.add(TYPE, "saved")
    queue, connect = jobs.queue, sqlite3.connect

    def full(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(StorageError, match="disk is full"):
        for number in range(100):
            queue.add(f"{number}", "saved", JobOptions(base="x" * 4000))
    monkeypatch.undo()
    assert jobs.queue.jobs()[0] == job


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET options = '{}'",
        "UPDATE jobs SET told = x'00'",
        "UPDATE jobs SET attempts = 'many'",
        "DROP TABLE jobs",
        "PRAGMA user_version = 9",
    ],
)
def test_a_damaged_database_is_told(jobs, statement):
    jobs.queue.add(TYPE, "saved")
    connection = sqlite3.connect(jobs.folder / DATABASE_FILE)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(StorageError, match="expected"):
        jobs.queue.jobs()


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / DATABASE_FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="damaged"):
        JobQueue(tmp_path)


def test_a_job_that_is_changed_keeps_its_place(jobs):
    first, second = jobs.queue.add("one", "saved"), jobs.queue.add("two", "saved")
    changed = jobs.queue.ask_to_stop(first.job_id)
    assert jobs.queue.jobs() == [replace(changed), second]
