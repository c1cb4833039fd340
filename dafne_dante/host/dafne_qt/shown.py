"""What the windows show, collected from the site's stores; no Qt here, and nothing is changed.

Invariants: every function may take a while (disk, a database), so it is called away from the thread that paints; what
cannot be read is a DanteError, whose words are shown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dafne_dante.annotations.store.opening import open_case_store, store_exists
from dafne_dante.config import Settings
from dafne_dante.durable import read_bounded
from dafne_dante.federation.outbox import open_outbox, outbox_exists
from dafne_dante.federation.outbox_states import WORDS as OUTBOX_WORDS
from dafne_dante.host.dafne_qt import words
from dafne_dante.plugin.job_states import Job
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.local.shelf import local_shelf, local_types
from dafne_dante.plugin.local.versions import LocalVersion
from dafne_dante.plugin.report.words import bytes_in_words

__all__ = [
    "CaseLine",
    "JobLine",
    "LocalLine",
    "Ready",
    "VersionLine",
    "case_lines",
    "job_lines",
    "local_lines",
    "outbox_sentence",
    "ready_to_improve",
    "status_sentence",
    "version_lines",
]

_SECONDS_A_MINUTE = 60
_OUT = "out"
_REPORT, _SUMMARY = "report.html", "summary.json"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Ready:
    """What an improvement would learn from.

    Attributes:
        cases, slices, labels: of the studies that are kept here.
        missing: what is missing, in words; "" when it can begin.
        can_send: whether there is a server to send to.
        last_s: seconds that the model's last improvement took; 0 when there was none.
    """

    model_type: str
    cases: int = 0
    slices: int = 0
    labels: tuple[str, ...] = ()
    missing: str = ""
    can_send: bool = False
    last_s: float = 0.0


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


@dataclass(frozen=True)
class VersionLine:
    """A model that can be used: its number, 0 for the global one, what it is in words, and whether it is used."""

    number: int
    told: str
    is_used: bool


@dataclass(frozen=True)
class CaseLine:
    """A kept case, by its pseudonym, in words."""

    case_id: str
    told: str


def ready_to_improve(settings: Settings, model_type: str, queue: JobQueue | None = None) -> Ready:
    """What is kept here, and how long the last job of the queue took; DanteError where something cannot be read."""
    if not model_type:
        return Ready("", missing=words.NO_MODEL)
    if not settings.server:
        return Ready(model_type, missing=words.NO_SERVER)
    if not store_exists(settings):
        return Ready(model_type, missing=words.NOTHING_KEPT, can_send=True)
    headers = [case.header for case in open_case_store(settings, say=lambda text: None).cases()]
    return Ready(
        model_type,
        cases=len(headers),
        slices=sum(header.annotated_slices for header in headers),
        labels=tuple(sorted({label for header in headers for label in header.labels})),
        missing="" if headers else words.NOTHING_KEPT,
        can_send=True,
        last_s=_last_seconds(queue, model_type) if queue is not None else 0.0,
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


def version_lines(settings: Settings, model_type: str) -> list[VersionLine]:
    """The global model and every improved one that is kept, the newest first; DanteError as `local_lines`."""
    state = local_shelf(settings, model_type).state()
    improved = [VersionLine(one.number, _version(one), one.number == state.chosen) for one in reversed(state.versions)]
    return [*improved, VersionLine(0, words.GLOBAL_MODEL, state.current is None)]


def _version(one: LocalVersion) -> str:
    when = _when(one.created_s)
    return words.IMPROVED_MODEL.format(number=one.number, before=one.before, after=one.after, when=when)


def case_lines(settings: Settings) -> list[CaseLine]:
    """Every kept case, the newest first; DanteError where the store cannot be read."""
    if not store_exists(settings):
        return []
    headers = [case.header for case in open_case_store(settings, say=lambda text: None).cases()]
    return [
        CaseLine(
            one.case_id,
            words.CASE.format(when=_when(one.saved_ns / 1e9), slices=words.counted(words.SLICES, one.annotated_slices)),
        )
        for one in sorted(headers, key=lambda header: -header.saved_ns)
    ]


def outbox_sentence(settings: Settings) -> str:
    """How many updates wait to be sent, and why the first does; "" when none does; DanteError as the outbox."""
    if not outbox_exists(settings):
        return ""
    waiting = [one for one in open_outbox(settings).entries(finished=False) if one.state in ("waiting", "sending")]
    if not waiting:
        return ""
    form = words.OUTBOX_ONE if len(waiting) == 1 else words.OUTBOX
    return form.format(count=len(waiting), why=OUTBOX_WORDS.get(waiting[0].why, waiting[0].why))


def status_sentence(queue: JobQueue, jobs: list[JobLine]) -> str:
    """One line on what goes on, or what the last job came to; "" before the first."""
    first = next((job for job in jobs if job.is_alive), jobs[0] if jobs else None)
    if first is None:
        return ""
    summary = _summary(queue.folder_of(first.job_id)) if not first.is_alive else {}
    before, after = (_mean(summary.get(name)) for name in ("dice_before", "dice_after"))
    if summary.get("gate") != "passed" or before is None or after is None:
        return f"{first.model_type}: {first.state}, {first.told}"
    size = summary.get("delta_bytes")
    sent = words.STATUS_SENT.format(size=bytes_in_words(size)) if summary.get("uploaded") and size else ""
    when = _when(queue.get(first.job_id).changed_s)
    return words.STATUS_IMPROVED.format(model_type=first.model_type, when=when, before=before, after=after, sent=sent)


def _last_seconds(queue: JobQueue, model_type: str) -> float:
    for job in reversed(queue.jobs()):
        seconds = _summary(queue.folder_of(job.job_id)).get("seconds") if job.model_type == model_type else None
        if isinstance(seconds, int | float):
            return float(seconds)
    return 0.0


def _summary(folder: Path) -> Mapping[str, Any]:
    path = folder / _OUT / _SUMMARY
    return _object(read_bounded(path, max_bytes=_MOST_BYTES).decode(errors="replace")) if path.is_file() else {}


def _mean(dice: Any) -> float | None:
    mean = dice.get("mean") if isinstance(dice, dict) else None
    return float(mean) if isinstance(mean, int | float) else None


def _when(seconds: float) -> str:
    """Local time: the hour today, else with the day."""
    moment, now = datetime.fromtimestamp(seconds).astimezone(), datetime.now().astimezone()
    return moment.strftime("%H:%M" if moment.date() == now.date() else "%Y-%m-%d %H:%M")


def _line(job: Job, folder: Path) -> JobLine:
    report = folder / _OUT / _REPORT
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
