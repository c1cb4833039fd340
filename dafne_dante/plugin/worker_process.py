"""The other end of a worker: starts it, follows it, stops it; for a host with a window, or a nightly run.

Terms: to *attach* is to follow a worker that another process started, from its file of events.

Invariants
- No call but `wait` takes longer than a small file's reading: a thread follows the file and the queue.
- The worker's output is a file and its session its own, so that it goes on when whoever started it is gone.
- A worker that dies, or is silent for `silence_s` of time that the machine was awake, is replaced; the queue bounds
  how often. One that was told to stop is ended after `GRACE_S`, and, where the best so far is wanted, replaced by one
  that keeps it.
"""

import subprocess
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Lock, Thread

from dafne_dante.config import Settings
from dafne_dante.errors import DanteError, StorageError
from dafne_dante.plugin.job_holder import SystemCensus, end_holder
from dafne_dante.plugin.job_run import clear_results, has_checkpoint
from dafne_dante.plugin.job_states import Job, Wish
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.limited_process import OWN_PROGRAM, limited_variables, start_detached
from dafne_dante.plugin.worker_events import EVENTS_FILE, Event, EventFile

__all__ = ["GRACE_S", "SILENCE_S", "WorkerProcess"]

GRACE_S = 3.0
SILENCE_S = 300.0
_LOOK_S = 0.1
_END_S = 1.0
_BEGIN_S = 180.0
_COMPLAINTS = "worker.log"


class WorkerProcess:
    """A job of the queue, its worker and what that tells.

    Args:
        command: the program before the arguments `worker --job ID`; a seam for tests.
        silence_s: without a sign of life before the worker is taken to hang.
    """

    def __init__(
        self,
        queue: JobQueue,
        job_id: str,
        settings: Settings,
        *,
        command: Sequence[str] = OWN_PROGRAM,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._queue, self._job_id, self._settings, self._command = queue, job_id, settings, tuple(command)
        self._folder, self._silence_s = queue.folder_of(job_id), silence_s
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._over, self._asked_s, self._lock = Flag(), 0.0, Lock()
        self._beat, self._heard_s = (0, 0.0), time.monotonic()

    def start(self) -> None:
        """Start a worker and follow it; StorageError where the system refuses."""
        file = EventFile(self._folder / EVENTS_FILE, from_end=True)
        self._spawn()
        self._follow(file)

    def attach(self) -> None:
        """Follow the job's worker, from its first event on; start one where the job has none."""
        file = EventFile(self._folder / EVENTS_FILE)
        job = self._queue.get(self._job_id)
        left = job.state == "running" and _is_left(job)
        if job.state == "queued" or (left and not job.wish):  # with a wish, the thread decides
            self._spawn()
        self._follow(file)

    def take(self) -> list[Event]:
        """The events since the last call, without waiting."""
        found = []
        while True:
            try:
                found.append(self._events.get_nowait())
            except Empty:
                return found

    @property
    def is_over(self) -> bool:
        """Whether the job has ended and every event was handed on; or is lost, and nothing will come."""
        return self._over.is_set()

    def cancel(self, *, keep: bool = False) -> Job:
        """Ask the worker to stop and return at once; it is ended within five seconds, see `is_over`.

        Args:
            keep: the best so far is measured and kept, which goes on for a while after training has ended.

        Raises:
            TrainingError: the job has ended.
        """
        wish: Wish = "keep" if keep else "drop"
        job = self._queue.ask_to_stop(self._job_id, wish)
        self._asked_s = time.monotonic()
        return job

    def wait(self, timeout_s: float) -> bool:
        """Wait until the job is over; False when it is not within the time."""
        return self._over.wait(timeout_s)

    def leave(self) -> None:
        """Follow it no longer; the worker goes on."""
        self._over.set()

    def pause(self) -> Job:
        """End the worker, and let anybody go on with the job later, from its last epoch; waits up to three seconds."""
        with self._lock:
            self._over.set()
            job = self._queue.get(self._job_id)
            if job.state == "running":
                end_holder(job.holder, wait_s=_END_S)
            elif job.state == "queued" and self._process is not None:
                self._process.terminate()
            self._reap()
            return self._queue.put_back(self._job_id)

    def _spawn(self) -> None:
        command = [*self._command, "worker", "--job", self._job_id]
        try:
            with (self._folder / EVENTS_FILE).open("ab") as events, (self._folder / _COMPLAINTS).open("wb") as log:
                variables = limited_variables(self._settings)
                self._process = start_detached(command, variables, out=events, complaints=log)
        except OSError as error:
            raise StorageError(f"cannot start the worker: {error.strerror or type(error).__name__}") from error
        self._heard_s = time.monotonic()

    def _follow(self, file: EventFile) -> None:
        Thread(target=self._watch, args=(file,), name="worker", daemon=True).start()

    def _watch(self, file: EventFile) -> None:
        while not self._over.wait(_LOOK_S):
            try:
                with self._lock:
                    ended = self._over.is_set() or not self._look_after(self._queue.get(self._job_id))
                for event in file.take():
                    self._events.put(event)
            except DanteError as error:
                self._events.put(Event("stage", time.time(), {"words": str(error)}))
                ended = self._process is None or self._process.poll() is not None
            if ended:
                self._over.set()
        if self._process is not None:
            self._process.wait()  # so that no dead process stays behind in the system's list

    def _look_after(self, job: Job) -> bool:
        """Replace a worker that is gone, end one that must be; False when nothing more will come."""
        dead = self._process is None or self._process.poll() is not None
        if job.state == "queued":
            # A worker that could not even claim the job would not another time either.
            return not dead and time.monotonic() - self._heard_s < _BEGIN_S
        if job.state != "running":
            return False
        if _is_left(job):
            return self._replace(job) if dead else True
        self._end_if_needed(job)
        return True

    def _end_if_needed(self, job: Job) -> None:
        now_s, beat = time.monotonic(), (job.attempts, job.heartbeat_s)
        if beat != self._beat:
            self._beat, self._heard_s = beat, now_s
        hangs = now_s - self._heard_s > self._silence_s
        # With the wish to keep, the worker that replaces the first one has all the time to measure.
        asked = bool(job.wish) and 0 < self._asked_s < now_s - GRACE_S
        if hangs or asked:
            self._asked_s = 0.0
            end_holder(job.holder, wait_s=_END_S)
            self._reap()

    def _replace(self, job: Job) -> bool:
        """Another worker for a job whose worker is gone; False where none is wanted."""
        if job.wish == "drop" or (job.wish == "keep" and not has_checkpoint(self._folder)):
            clear_results(self._folder)
            self._queue.close_left(self._job_id, "cancelled; nothing was kept")
            self._events.put(Event("ended", time.time(), {"state": "cancelled", "told": "cancelled"}))
            return False
        self._events.put(Event("stage", time.time(), {"words": "the worker ended; another one goes on"}))
        self._asked_s = 0.0  # this one knows from its first moment, and has all the time to measure
        self._spawn()
        return True

    def _reap(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                return


def _is_left(job: Job) -> bool:
    return SystemCensus().is_gone(job.holder, 0.0)
