"""One nightly run: all models with new annotations, one after the other, within the window and the budget.

Invariants
- Every model goes through the queue, so that a job of Dafne's and one of the night are never two.
- What is left of the time is shared by the models that are not begun yet, so that the first does not take it all.
- Improved models are compared with a newer global one last, and only in a night that was not ended early.
- What waits in the outbox goes first, so that a night that ends early has still sent it.
- When the window or the budget ends, the machine is unplugged or somebody comes, the worker is ended; its job goes on
  from its last epoch another time.
- One run at a time; when the last one began is remembered, so that a missed window is known.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from dafne_dante.annotations.store.opening import open_case_store, store_exists
from dafne_dante.config import Settings
from dafne_dante.durable import read_bounded, write_atomically
from dafne_dante.errors import DanteError, StorageError, TrainingError
from dafne_dante.federation.sending import Tried
from dafne_dante.plugin.delivering import send_what_waits, sent_in_words
from dafne_dante.plugin.job_states import Job
from dafne_dante.plugin.jobs import JobQueue, automatic_options, jobs_folder
from dafne_dante.plugin.machine import Machine, SystemMachine
from dafne_dante.plugin.night import Chosen, Left, choose_models, window_at
from dafne_dante.plugin.night_updates import update_improved_models
from dafne_dante.plugin.pausing import is_paused
from dafne_dante.plugin.worker_events import Event
from dafne_dante.plugin.worker_process import WorkerProcess

__all__ = ["Night", "NightPlan", "Worker", "plan_night", "run_night"]

_MEMORY = "nightly.json"
_MAX_BYTES = 4096
_LOOK_S = 0.2
_ASK_MACHINE_S = 10.0
_SECONDS_A_MINUTE = 60.0


class Worker(Protocol):
    """What a night needs of a `WorkerProcess`; a seam for tests."""

    def start(self) -> None:
        """Begin."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Whether it is over within the time."""
        ...

    def take(self) -> list[Event]:
        """What it told."""
        ...

    def pause(self) -> Job:
        """End it, so that it goes on another time."""
        ...


@dataclass(frozen=True)
class NightPlan:
    """What a run would do now.

    Attributes:
        refused: why it would do nothing, in words; "" when it may work.
        until: local time when it must end.
        catching_up: whether it makes up for a missed window.
        chosen, left: models.
    """

    refused: str
    until: datetime
    catching_up: bool
    chosen: tuple[Chosen, ...]
    left: tuple[Left, ...]


@dataclass(frozen=True)
class Night:
    """What a run did.

    Attributes:
        jobs: as they were after it.
        ended_early: why, in words; "" when it came to its end.
        sent: what became of updates that waited in the outbox, in words; "" where none was due.
        updated: what became of improved models whose global model is newer, in words.
    """

    plan: NightPlan
    jobs: tuple[Job, ...] = ()
    ended_early: str = ""
    sent: str = ""
    updated: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Seams:
    machine: Machine
    make_worker: Callable[[str], Worker]
    now: Callable[[], datetime]
    tell: Callable[[str, Event], None] = field(default=lambda model_type, event: None)


def plan_night(
    settings: Settings,
    queue: JobQueue,
    *,
    machine: Machine | None = None,
    now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    also: tuple[str, ...] = (),
    at_once: bool = False,
) -> NightPlan:
    """What a run would do now; nothing is changed.

    Args:
        also: model types to work on though no job was for them yet.
        at_once: whether the window and the machine's state do not matter, as a person said.

    Raises:
        StorageError: the queue or the case store cannot be read.
        TrustError: the key of the case store is lost.
    """
    machine, wishes, moment = machine or SystemMachine(), settings.nightly, now()
    window, last = window_at(wishes, moment), _last_begun(settings)
    until = moment + timedelta(minutes=wishes.max_minutes)
    catching_up = not window.is_now and last is not None and last < window.begin.timestamp() and not at_once
    if window.is_now and not at_once:
        until = min(until, window.end)
    refused = ""
    if not (window.is_now or catching_up or at_once):
        refused = f"it is not between {wishes.start} and {wishes.stop}"
    elif not at_once:
        refused = _refused_by(machine, settings, catching_up=catching_up)
    alive = [job.model_type for job in queue.held()]
    # A model gets a share of the night instead of the minutes that are for daytime.
    options = replace(automatic_options(settings), minutes=None)
    begun_s = math.inf if at_once else window.begin.timestamp()
    chosen, left = choose_models(
        queue.jobs(), _saved_ns(settings), alive, also=also, options=options, begun_s=begun_s
    )  # fmt: skip
    return NightPlan(refused, until, catching_up, tuple(chosen), tuple(left))


def run_night(
    settings: Settings,
    queue: JobQueue,
    *,
    machine: Machine | None = None,
    make_worker: Callable[[str], Worker] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    tell: Callable[[str, Event], None] = lambda model_type, event: None,
    also: tuple[str, ...] = (),
    at_once: bool = False,
    sending: Callable[[Settings], Sequence[Tried]] = send_what_waits,
    updating: Callable[[Settings, Callable[[], str]], tuple[list[str], str]] = update_improved_models,
) -> Night:
    """Do what `plan_night` says; arguments and errors as there.

    Args:
        make_worker: a worker for the job of this id.
        sending: sends what waits in the outbox.
        updating: see `update_improved_models`.
        tell: is told every event of a worker, and of which model it is.

    Raises:
        TrainingError: another nightly run is on.
    """
    machine = machine or SystemMachine()
    seams = _Seams(machine, make_worker or (lambda job_id: WorkerProcess(queue, job_id, settings)), now, tell)
    with _alone(settings):
        plan = plan_night(settings, queue, machine=machine, now=now, also=also, at_once=at_once)
        if plan.refused and _last_begun(settings) is not None:
            return Night(plan)
        _remember_begun(settings, now())
        if plan.refused:
            return Night(plan)
        sent, jobs = _sent(settings, sending), []
        for number, chosen in enumerate(plan.chosen):
            share_s = (plan.until - now()).total_seconds() / (len(plan.chosen) - number)
            job_id = _queued(queue, chosen, minutes=share_s / _SECONDS_A_MINUTE)
            early = _work(job_id, chosen.model_type, settings, plan, seams, at_once=at_once)
            jobs.append(queue.get(job_id))
            if early:
                return Night(plan, tuple(jobs), early, sent)
        ending = _Ending(settings, plan, seams, at_once=at_once)
        updated, early = updating(settings, ending.now)
        return Night(plan, tuple(jobs), early, sent, tuple(updated))


def _sent(settings: Settings, sending: Callable[[Settings], Sequence[Tried]]) -> str:
    """What became of updates that wait, in words; a server that is away is no reason to learn nothing."""
    try:
        tried = sending(settings)
    except DanteError as error:
        return f"nothing was sent from the outbox: {error}"
    return sent_in_words(tried) if tried else ""


def _queued(queue: JobQueue, chosen: Chosen, *, minutes: float) -> str:
    """The job of a chosen model, with so much time at most; what was interrupted, or the button made, stays."""
    if chosen.is_begun or minutes <= 0:
        return chosen.job_id or queue.add(chosen.model_type, "nightly", chosen.options).job_id
    most = min(minutes, chosen.options.minutes or minutes)
    return queue.add(chosen.model_type, "nightly", replace(chosen.options, minutes=most)).job_id


class _Ending:
    """Why a night must end now; the machine is asked every ten seconds."""

    def __init__(self, settings: Settings, plan: NightPlan, seams: _Seams, *, at_once: bool) -> None:
        self._settings, self._plan, self._seams, self._at_once = settings, plan, seams, at_once
        self._asked_s = time.monotonic()

    def now(self) -> str:
        """In words; "" while it may go on."""
        if self._seams.now() >= self._plan.until:
            return "the time is over"
        if self._at_once or time.monotonic() - self._asked_s <= _ASK_MACHINE_S:
            return ""
        self._asked_s = time.monotonic()
        return _refused_by(self._seams.machine, self._settings, catching_up=self._plan.catching_up)


def _work(
    job_id: str, model_type: str, settings: Settings, plan: NightPlan, seams: _Seams, *, at_once: bool
) -> str:  # fmt: skip
    """Let a worker do one job; why it was ended early, or ""."""
    ending = _Ending(settings, plan, seams, at_once=at_once)
    if seams.now() >= plan.until:
        return "the time is over"
    worker = seams.make_worker(job_id)
    worker.start()
    over, early = False, ""
    try:
        while not over and not early:
            over = worker.wait(_LOOK_S)
            for event in worker.take():
                seams.tell(model_type, event)
            early = ending.now()
    finally:
        if not over:  # also when a person stops the run
            worker.pause()
    return early


def _refused_by(machine: Machine, settings: Settings, *, catching_up: bool) -> str:
    if is_paused(settings):
        return "somebody paused it; `dafne-dante jobs resume`, or the switch in Dafne's Activity window, ends that"
    if settings.nightly.only_on_power and not machine.is_on_power():
        return "the machine runs on its battery"
    if (settings.nightly.only_when_idle or catching_up) and not machine.is_idle():
        return "somebody uses the machine"
    return ""


def _saved_ns(settings: Settings) -> list[int]:
    if not store_exists(settings):
        return []
    store = open_case_store(settings, say=lambda words: None)
    return [case.saved_ns for case in store.cases()]


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    lock = FileLock(jobs_folder(settings) / "nightly.lock", timeout=0, thread_local=False, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError("expected no other nightly run, found one; wait until it is done") from None
    except OSError as error:
        raise StorageError(f"cannot lock the jobs: {error.strerror or type(error).__name__}") from error
    try:
        yield
    finally:
        lock.release()


def _last_begun(settings: Settings) -> float | None:
    """Seconds since 1970; None where no run was ever tried, or nothing can be told of it."""
    path: Path = jobs_folder(settings) / _MEMORY
    try:
        return float(json.loads(read_bounded(path, max_bytes=_MAX_BYTES))["begun_s"])
    except (DanteError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _remember_begun(settings: Settings, moment: datetime) -> None:
    content = json.dumps({"begun_s": moment.timestamp()}).encode()
    write_atomically(jobs_folder(settings) / _MEMORY, content, mode=0o600)
