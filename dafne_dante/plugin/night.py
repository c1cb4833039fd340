"""When a nightly run may work, and with which models; it decides and does nothing.

Terms: the *window* is the time of day from `start` to `stop`, which may go over midnight. A window was *missed* when
the machine was off, or slept, all through it. A model is one that the site improves: one that a job was for.

Invariants
- A model is worked on when the site kept a case since the last job that learned, or a job for it waits or was
  interrupted; and never again for the same cases when a job failed with them or a person stopped it. A job that failed
  before it came to any case (no way to the server) is made again, the next night.
- What a person chose for one job is for that job: whether the night sends, how it improves and from which server is
  the settings' to say, unless a job waits or was interrupted that says it.
- Outside of the window a run works only to catch up on a missed one, and then only while nobody is at the machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from dafne_dante.config import NightlySettings
from dafne_dante.plugin.job_states import UNTRIED, Job, JobOptions

__all__ = ["Chosen", "Left", "Window", "choose_models", "window_at"]


@dataclass(frozen=True)
class Window:
    """The window that a moment lies in, or the last one before it; local times."""

    begin: datetime
    end: datetime
    is_now: bool


@dataclass(frozen=True)
class Chosen:
    """A model that is to be worked on, why in words, the job that is there already, if any, and whether it is begun."""

    model_type: str
    why: str
    options: JobOptions
    job_id: str = ""
    is_begun: bool = False


@dataclass(frozen=True)
class Left:
    """A model that is not, and why in words."""

    model_type: str
    why: str


def window_at(settings: NightlySettings, now: datetime) -> Window:
    """The window at a local moment, or the last one."""
    start, stop = time.fromisoformat(settings.start), time.fromisoformat(settings.stop)
    for back in (0, 1):
        day = (now - timedelta(days=back)).date()
        begin, end = datetime.combine(day, start, now.tzinfo), datetime.combine(day, stop, now.tzinfo)
        end += timedelta(days=1 if end <= begin else 0)
        if begin <= now:
            return Window(begin, end, now < end)
    raise AssertionError("yesterday's window began before now")


def choose_models(
    jobs: Sequence[Job],
    saved_ns: Sequence[int],
    alive: Sequence[str],
    *,
    also: Sequence[str] = (),
    options: JobOptions | None = None,
    begun_s: float = math.inf,
) -> tuple[list[Chosen], list[Left]]:
    """What to work on, interrupted jobs first, then those with the most new cases.

    Args:
        jobs: all, in the order in which they were asked for.
        saved_ns: of every case that the site keeps, when it was kept.
        alive: model types that a living worker works on.
        also: model types that no job was for yet.
        options: of jobs that the night makes; they learn from the cases that the site keeps.
        begun_s: since 1970, when this night began: what had no way to the server in it is left for the next one.
    """
    chosen: list[tuple[int, Chosen]] = []
    left: list[Left] = []
    for model_type in dict.fromkeys([*(job.model_type for job in jobs), *also]):
        own = [job for job in jobs if job.model_type == model_type]
        if model_type in alive:
            left.append(Left(model_type, "another process works on it"))
        elif open_jobs := [job for job in own if job.state in ("running", "queued")]:
            first = min(open_jobs, key=lambda job: job.state != "running")
            interrupted = first.state == "running"
            why = "a job was interrupted" if interrupted else "a job waits"
            found = Chosen(model_type, why, first.options, first.job_id, is_begun=interrupted)
            chosen.append((-2 if interrupted else -1, found))
        elif count := _new_cases(own, saved_ns, begun_s):
            why = f"{count} new case{'s' if count > 1 else ''}"
            chosen.append((len(saved_ns) - count, Chosen(model_type, why, options or JobOptions())))
        else:
            left.append(Left(model_type, "no new case since the last job"))
    return [one for _, one in sorted(chosen, key=lambda pair: pair[0])], left


def _new_cases(own: Sequence[Job], saved_ns: Sequence[int], begun_s: float) -> int:
    """Cases that no job of a model has had before it; a case that was kept while a job ran is new."""
    known = max((_known_until_ns(job, begun_s) for job in own), default=0)
    return sum(one > known for one in saved_ns)


def _known_until_ns(job: Job, begun_s: float) -> int:
    if job.state == "done":
        return job.learned_until_ns
    again = job.learned_until_ns == UNTRIED and job.created_s < begun_s
    return int(job.created_s * 1e9) if job.state in ("failed", "cancelled") and not again else 0
