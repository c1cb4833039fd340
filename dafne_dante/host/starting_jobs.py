"""Begins the jobs that are due while a host is open.

Invariants: only what a save or a person asked for is begun, the night's jobs are the night's; one look at the queue is
one file's reading, in a thread of its own; closing the host ends no worker, and what waits then is begun at the next
start, or by the night.
"""

from collections.abc import Callable
from typing import Protocol

from dafne_dante.host.looking import Looking
from dafne_dante.plugin.jobs import JobQueue

__all__ = ["LOOK_S", "JobStarter", "Startable"]

LOOK_S = 1.0


class Startable(Protocol):
    """What is needed of a `WorkerProcess`."""

    def start(self) -> None:
        """Begin."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""


class JobStarter:
    """Looks every `look_s` for jobs that are due, and starts a worker for each.

    Args:
        make_worker: a worker for the job of this id.
        say: is told what goes wrong, once for each cause.
        ended: is called when a job that was begun here is over.
        is_paused: whether jobs that nobody asked for just now wait.
    """

    def __init__(
        self,
        queue: JobQueue,
        make_worker: Callable[[str], Startable],
        say: Callable[[str], None],
        *,
        look_s: float = LOOK_S,
        ended: Callable[[], None] = lambda: None,
        is_paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._queue, self._make_worker = queue, make_worker
        self._workers: dict[str, Startable] = {}
        self._ended, self._is_paused = ended, is_paused
        self._looking = Looking(self.look, say, name="jobs", look_s=look_s)

    def start(self) -> None:
        """Look from now on."""
        self._looking.start()

    def stop(self) -> None:
        """Begin nothing more; workers go on."""
        self._looking.stop()

    def look(self) -> list[str]:
        """Begin what is due now, and return the ids.

        Raises:
            StorageError: the queue cannot be read, or the system starts no process.
        """
        working = {job_id: worker for job_id, worker in self._workers.items() if not worker.is_over}
        if len(working) < len(self._workers):
            self._ended()
        self._workers = working
        ours = ("button",) if self._is_paused() else ("button", "saved")
        due = [job.job_id for job in self._queue.startable() if job.trigger in ours]
        begun = [job_id for job_id in due if job_id not in self._workers]  # its worker may not have claimed it yet
        for job_id in begun:
            worker = self._make_worker(job_id)
            worker.start()
            self._workers[job_id] = worker
        return begun
