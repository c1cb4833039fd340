"""While Dafne is open, what a save or a person asked for is begun when it is due, once, and nothing else."""

import time

import pytest
from queues import TYPE, Jobs

from dafne_dante.errors import StorageError
from dafne_dante.host.starting_jobs import JobStarter
from dafne_dante.plugin.jobs import JobQueue


class FakeWorker:
    def __init__(self):
        self.starts, self.is_over = 0, False

    def start(self):
        self.starts += 1


class Desk:
    """A queue, the workers that were made for it, and what was said."""

    def __init__(self, folder):
        self.jobs, self.workers, self.said = Jobs(folder), {}, []

    def starter(self, **options):
        return JobStarter(self.jobs.queue, self.make, self.said.append, **options)

    def make(self, job_id):
        return self.workers.setdefault(job_id, FakeWorker())


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "jobs")


def test_a_save_is_begun_when_its_pause_is_over_and_only_once(desk):
    job, starter = desk.jobs.queue.add(TYPE, "saved"), desk.starter()
    assert starter.look() == []
    desk.jobs.clock.now_s += 121
    assert starter.look() == [job.job_id]
    assert starter.look() == []  # its worker has not claimed it yet
    assert desk.workers[job.job_id].starts == 1


def test_a_worker_that_ended_without_claiming_its_job_is_replaced(desk):
    job, starter = desk.jobs.queue.add(TYPE, "button"), desk.starter()
    assert starter.look() == [job.job_id]
    desk.workers[job.job_id].is_over = True
    assert starter.look() == [job.job_id]


def test_the_jobs_of_the_night_are_left_to_it(desk):
    desk.jobs.queue.add(TYPE, "nightly")
    assert desk.starter().look() == []


def test_a_fault_is_said_once_and_the_next_look_is_taken(desk, monkeypatch):
    starter, looks = desk.starter(look_s=0.01), []

    def refuse(queue):
        looks.append(1)
        raise StorageError("cannot read the jobs: disk")

    monkeypatch.setattr(JobQueue, "startable", refuse)
    starter.start()
    until_s = time.monotonic() + 10
    while len(looks) < 3 and time.monotonic() < until_s:
        time.sleep(0.01)
    starter.stop()
    assert len(looks) >= 3
    assert desk.said == ["cannot read the jobs: disk"]
