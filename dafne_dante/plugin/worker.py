"""The worker: one process that holds one job, works on it at the lowest priority, and tells what it does.

Invariants
- It holds the model type's lock before it claims the job, and until it ends: never two work on a model.
- It beats twice a second while its work goes on, and learns there what a person wishes and whether it lost the job.
  Work of which nothing was heard for `STILL_S` counts as hanging: the beats end, so that others may see it.
- Whatever ends the work is written into the queue and told as an event, unless the process dies.
- With the wish "keep", training ends before the next epoch, and what was learnt is measured and kept; with "drop",
  nothing stays.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event as Flag
from threading import Thread
from typing import Any

from dafne_dante.annotations.collect import Collection
from dafne_dante.annotations.store.opening import open_case_store, store_exists
from dafne_dante.config import Settings
from dafne_dante.errors import (
    DanteError,
    SettingsError,
    StorageError,
    TrainingError,
    TrainingStoppedError,
    TransportError,
)
from dafne_dante.plugin.improve import improve
from dafne_dante.plugin.improvement_request import Progress
from dafne_dante.plugin.job_holder import own_holder
from dafne_dante.plugin.job_run import UNSENT, Improve, clear_results, has_checkpoint, run_job
from dafne_dante.plugin.job_states import UNTRIED, Job, State, Wish
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.worker_events import EventWriter
from dafne_dante.training.history import EpochRecord

__all__ = ["BEAT_S", "STILL_S", "newest_case_ns", "work"]

BEAT_S = 0.5
STILL_S = 3600.0


def work(
    job_id: str,
    settings: Settings,
    queue: JobQueue,
    events: EventWriter,
    *,
    improving: Improve = improve,
    still_s: float = STILL_S,
) -> State:
    """Hold a job and do it; the state that it ends in.

    Raises:
        TrainingError: another process has the job or its model, or the job has ended already.
        StorageError: the queue cannot be used.
    """
    job = queue.get(job_id)
    with queue.working(job.model_type):
        holder = own_holder()
        claimed = queue.claim(job_id, holder)
        if claimed is None:
            raise TrainingError(
                "expected nobody else to hold the job, found another process; see dafne-dante jobs list"
            )
        events.tell("started", attempt=claimed.attempts, model_type=claimed.model_type, trigger=claimed.trigger)
        with _Pulse(queue, claimed, holder, still_s).beating() as pulse:
            state, told, until_ns = _run(claimed, settings, queue, events, pulse, improving=improving)
        try:
            queue.finish(job_id, holder, state, told, learned_until_ns=until_ns)
        finally:
            events.tell("ended", state=state, told=told)
        return state


def newest_case_ns(settings: Settings) -> int:
    """When the newest case that the site keeps was kept, in nanoseconds since 1970; 0 where it keeps none."""
    if not store_exists(settings):
        return 0
    store = open_case_store(settings, say=lambda words: None)
    return max((case.saved_ns for case in store.cases()), default=0)


class _Pulse:
    """What goes between the work and the queue: signs of life, how far it is, and what a person wishes."""

    def __init__(self, queue: JobQueue, job: Job, holder: str, still_s: float) -> None:
        self._queue, self._job, self._holder, self._still_s = queue, job, holder, still_s
        self._progress: dict[str, Any] = {}
        self._heard_s, self._over = time.monotonic(), Flag()
        self.wish: Wish = job.wish
        self.lost = ""

    def sign(self, **progress: Any) -> None:
        """The work goes on; TrainingStoppedError when it must not."""
        self._progress, self._heard_s = {**self._progress, **progress}, time.monotonic()
        self.check()

    def check(self) -> None:
        """TrainingStoppedError when the job is lost, or nothing of it is wanted."""
        if self.lost:
            raise TrainingStoppedError(self.lost)
        if self.wish == "drop":
            raise TrainingStoppedError("cancelled; nothing was kept")

    @contextmanager
    def beating(self) -> Iterator["_Pulse"]:
        """A thread beats within the block."""
        thread = Thread(target=self._beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            if time.monotonic() - self._heard_s > self._still_s:
                continue
            try:
                self.wish = self._queue.beat(self._job.job_id, self._holder, self._progress) or self.wish
            except TrainingError as error:
                self.lost = str(error)
                return
            except StorageError:
                continue  # a disk that is full for a while stops nothing; the next beat may be written


def _run(
    job: Job, settings: Settings, queue: JobQueue, events: EventWriter, pulse: _Pulse, *, improving: Improve
) -> tuple[State, str, int]:
    """Do the job: the state, how it ended in words, and up to when cases could be learned from."""
    folder = queue.folder_of(job.job_id)
    try:
        if pulse.wish == "drop" or (pulse.wish == "keep" and not has_checkpoint(folder)):
            pulse.wish = "drop"
        pulse.check()
        until_ns = 0 if job.options.data else newest_case_ns(settings)
        progress = _progress(events, pulse)
        summary = run_job(
            job,
            settings,
            folder,
            progress,
            fallback=lambda thrift, words: events.tell("fallback", words=words),
            improving=improving,
        )
    except TrainingStoppedError as error:
        with suppress(StorageError):
            if not pulse.lost:
                clear_results(folder)
        return "cancelled", str(error), 0
    except (TransportError, SettingsError) as error:  # the way to the server: the cases were not tried
        return "failed", str(error), UNTRIED
    except DanteError as error:
        return "failed", str(error), 0
    except OSError as error:
        return "failed", f"the operating system refused: {error.strerror or type(error).__name__}", 0
    events.tell("result", **summary)
    stopped = "stopped by a person, the best so far was kept; " if pulse.wish == "keep" else ""
    unsent = f"; its update went into the outbox and waits there: {summary[UNSENT]}" if UNSENT in summary else ""
    return "done", f"{stopped}{summary.get('gate_reason', '')}{unsent}", until_ns


def _progress(events: EventWriter, pulse: _Pulse) -> Progress:
    begun_s, counted = time.monotonic(), [0]

    def stage(words: str) -> None:
        events.tell("stage", words=words)
        pulse.sign(stage=words)

    def epoch(record: EpochRecord, epochs: int) -> None:
        counted[0] += 1
        each_s = (time.monotonic() - begun_s) / counted[0]
        told = _told(record, epochs, left_s=round(each_s * max(0, epochs - record.epoch), 1))
        events.tell("epoch", **told)
        pulse.sign(**told)

    def collected(collection: Collection) -> None:
        pulse.sign(cases=len(collection.cases))

    return Progress(collected, stage, epoch, _stop(pulse))


def _stop(pulse: _Pulse) -> Callable[[], bool]:
    def stop() -> bool:
        pulse.check()
        return pulse.wish == "keep"

    return stop


def _told(record: EpochRecord, epochs: int, *, left_s: float) -> Mapping[str, Any]:
    return {
        "epoch": record.epoch,
        "epochs": epochs,
        "dice": record.dice.get("mean"),
        "loss": round(record.train_loss, 6),
        "left_s": left_s,
        "pid": os.getpid(),
    }
