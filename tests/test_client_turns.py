"""Turns: what completes an upload is more than a second apart, over threads and processes of one machine."""

import itertools
import multiprocessing
import os
import signal
import threading
import time

import pytest

from dafne_dante.errors import ServerUnreachableError, StorageError
from dafne_dante.federation.upload_turns import UploadTurns

SERVER = "https://federation.example/"


def note_turn(folder, queue):
    with UploadTurns(folder, SERVER).turn():
        queue.put(time.time())


def hold_turn(folder, queue):
    with UploadTurns(folder, SERVER).turn():
        queue.put(os.getpid())
        time.sleep(60)


def test_turns_of_threads_and_processes_are_in_seconds_of_their_own(tmp_path):
    processes = multiprocessing.get_context("spawn")
    queue = processes.Queue()
    children = [processes.Process(target=note_turn, args=(tmp_path, queue))]
    children += [threading.Thread(target=note_turn, args=(tmp_path, queue)) for _ in range(2)]
    for child in children:
        child.start()
    times = sorted(queue.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    assert all(later - earlier > 1.0 for earlier, later in itertools.pairwise(times))
    assert len({int(moment) for moment in times}) == len(times)


def test_a_killed_process_lets_go(tmp_path):
    processes = multiprocessing.get_context("spawn")
    queue = processes.Queue()
    child = processes.Process(target=hold_turn, args=(tmp_path, queue))
    child.start()
    pid = queue.get(timeout=60)
    with (
        pytest.raises(ServerUnreachableError, match="another upload") as raised,
        UploadTurns(tmp_path, SERVER, wait_s=0.1).turn(),
    ):
        pytest.fail("two at once")
    assert not raised.value.may_have_arrived
    os.kill(pid, signal.SIGKILL)
    child.join()
    with UploadTurns(tmp_path, SERVER, wait_s=5.0).turn():
        pass


@pytest.mark.parametrize(
    ("passed", "pauses"), [(5.0, []), (1.3, []), (1.0, [0.2]), (0.0, [1.2]), (-3600.0, [1.2])],
    ids=["long ago", "ago", "just now", "at once", "the clock was set back"],
)  # fmt: skip
def test_the_pause_is_what_is_missing(tmp_path, passed, pauses):
    made, now = [], [1e9]
    turns = UploadTurns(tmp_path, SERVER, pause=made.append, clock=lambda: now[0])
    with turns.turn():
        pass
    now[0] += passed
    with turns.turn():
        pass
    assert made == pytest.approx(pauses, abs=1e-6)


def test_a_failed_upload_counts_as_well_and_another_server_does_not(tmp_path):
    made = []
    turns = UploadTurns(tmp_path, SERVER, pause=made.append, clock=lambda: 1e9)
    with pytest.raises(ServerUnreachableError), turns.turn():
        raise ServerUnreachableError("lost")
    with UploadTurns(tmp_path, "https://other.example/", pause=made.append, clock=lambda: 1e9).turn():
        pass
    assert made == []
    with turns.turn():
        pass
    assert made == pytest.approx([1.2])


def test_a_folder_that_is_a_file_is_a_fault_of_the_disk(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError), UploadTurns(tmp_path / "file", SERVER).turn():
        pytest.fail("entered")
