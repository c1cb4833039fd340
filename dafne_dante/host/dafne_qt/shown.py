"""What the windows show, collected from the site's stores; no Qt here, and nothing is changed.

Invariants: every function may take a while (disk, a database), so it is called away from the thread that paints; what
cannot be read is a DanteError, whose words are shown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dafne_dante.annotations.store.opening import open_case_store, store_exists
from dafne_dante.config import Settings
from dafne_dante.host.dafne_qt import words
from dafne_dante.plugin.job_states import Job
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.local.shelf import local_shelf, local_types

__all__ = ["JobLine", "LocalLine", "Ready", "job_lines", "local_lines", "ready_to_improve", "status_sentence"]

_SECONDS_A_MINUTE = 60
_REPORT = "report.html"


@dataclass(frozen=True)
class Ready:
    """What an improvement would learn from.

    Attributes:
        cases, slices, labels: of the studies that are kept here.
        missing: what is missing, in words; "" when it can begin.
        can_send: whether there is a server to send to.
    """

    model_type: str
    cases: int = 0
    slices: int = 0
    labels: tuple[str, ...] = ()
    missing: str = ""
    can_send: bool = False


@dataclass(frozen=True)
class JobLine:
    """A job in words; `report` is its page, if there is one; `is_alive` whether it can be stopped."""

    job_id: str
    model_type: str
    trigger: str
    state: str
    told: str
    is_alive: bool
    report: Path | None


@dataclass(frozen=True)
class LocalLine:
    """Which model of a type Dafne uses, in words; `is_improved` when it is the site's own."""

    model_type: str
    told: str
    is_improved: bool


def ready_to_improve(settings: Settings, model_type: str) -> Ready:
    """What is kept here; DanteError where the store cannot be read."""
    if not model_type:
        return Ready("", missing=words.NO_MODEL)
    if not store_exists(settings):
        return Ready(model_type, missing=words.NOTHING_KEPT, can_send=bool(settings.server))
    headers = [case.header for case in open_case_store(settings, say=lambda text: None).cases()]
    return Ready(
        model_type,
        cases=len(headers),
        slices=sum(header.annotated_slices for header in headers),
        labels=tuple(sorted({label for header in headers for label in header.labels})),
        missing="" if headers else words.NOTHING_KEPT,
        can_send=bool(settings.server),
    )


def job_lines(queue: JobQueue) -> list[JobLine]:
    """All jobs, the newest first; StorageError where the queue cannot be read."""
    return [_line(job, queue.folder_of(job.job_id)) for job in reversed(queue.jobs())]


def local_lines(settings: Settings) -> list[LocalLine]:
    """Every type with improved models; DanteError where they cannot be read."""
    found = []
    for model_type in local_types(settings):
        current = local_shelf(settings, model_type).state().current
        if current is None:
            found.append(LocalLine(model_type, words.GLOBAL_USED.format(model_type=model_type), is_improved=False))
        else:
            told = words.IMPROVED_USED.format(model_type=model_type, before=current.before, after=current.after)
            found.append(LocalLine(model_type, told, is_improved=True))
    return found


def status_sentence(jobs: list[JobLine]) -> str:
    """One line on what goes on, or how the last job ended; "" before the first."""
    first = next((job for job in jobs if job.is_alive), jobs[0] if jobs else None)
    return f"{first.model_type}: {first.state}, {first.told}" if first is not None else ""


def _line(job: Job, folder: Path) -> JobLine:
    report = folder / _REPORT
    return JobLine(
        job.job_id,
        job.model_type,
        words.TRIGGERS[job.trigger],
        words.STATES[job.state],
        _told(job),
        job.state in ("queued", "running"),
        report if report.is_file() else None,
    )


def _told(job: Job) -> str:
    if job.state == "queued":
        return words.WAITS if job.trigger == "saved" else ""
    return job.told if job.state != "running" else _progress(_object(job.progress))


def _progress(values: Mapping[str, Any]) -> str:
    parts = []
    if "epoch" in values:
        parts.append(words.EPOCH.format(epoch=values["epoch"], epochs=values.get("epochs", "?")))
        if isinstance(values.get("dice"), float):
            parts.append(f"Dice {values['dice']:.2f}")
        if isinstance(values.get("left_s"), int | float):
            parts.append(words.LEFT.format(minutes=max(1, round(values["left_s"] / _SECONDS_A_MINUTE))))
    elif "stage" in values:
        parts.append(str(values["stage"]))
    return ", ".join(parts)


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
