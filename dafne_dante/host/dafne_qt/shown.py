"""What the windows show, collected from the site's stores; no Qt here, and nothing is changed.

Invariants: every function may take a while (disk, a database), so it is called away from the thread that paints; what
cannot be read is a DanteError, whose words are shown.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dafne_dante.annotations.store.contents import CaseHeader
from dafne_dante.annotations.store.opening import open_case_store, store_exists
from dafne_dante.annotations.suggestions import Suggestion
from dafne_dante.config import Settings
from dafne_dante.durable import read_bounded
from dafne_dante.federation.outbox import open_outbox, outbox_exists
from dafne_dante.federation.outbox_states import WORDS as OUTBOX_WORDS
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.moments import local_moment
from dafne_dante.models.plan import ModelPlan
from dafne_dante.plugin.collecting import reading_of
from dafne_dante.plugin.estimating import expected_bytes, expected_seconds
from dafne_dante.plugin.job_run import has_checkpoint
from dafne_dante.plugin.job_states import Job
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.local.shelf import local_shelf, local_types
from dafne_dante.plugin.local.versions import LocalState, LocalVersion
from dafne_dante.plugin.report.words import bytes_in_words
from dafne_dante.plugin.step_times import known_step
from dafne_dante.plugin.usable import LeftOut, UsableCases, usable_cases

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
_IMPROVED = "improved here"
_REPORT, _SUMMARY = "report.html", "summary.json"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Ready:
    """What an improvement would learn from.

    Attributes:
        kept: studies that are kept here, whatever is drawn on them.
        cases, slices, labels: of those that the model can learn from.
        left: why the others are left out, a sentence for each reason.
        suggestions: what names that the model does not know perhaps stand for.
        missing: what is missing, in words; "" when it can begin.
        can_send: whether there is a server to send to.
        last_s: seconds that the model's last improvement took; 0 when there was none.
        about_s: seconds that the first one is to take; 0 where that is not known.
        server: where an update goes.
        sent_bytes: of the last update by each method that a job had; `about_bytes` of one to come.
    """

    model_type: str
    kept: int = 0
    cases: int = 0
    slices: int = 0
    labels: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    missing: str = ""
    can_send: bool = False
    last_s: float = 0.0
    about_s: float = 0.0
    server: str = ""
    sent_bytes: Mapping[str, int] = field(default_factory=dict)
    about_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class JobLine:
    """A job in words; `report` is its page, if there is one.

    `is_alive` says whether it can be stopped, `can_keep` whether there is anything to keep then.
    """

    job_id: str
    model_type: str
    trigger: str
    state: str
    told: str
    is_alive: bool
    report: Path | None
    is_running: bool = False
    can_keep: bool = False


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


def ready_to_improve(
    settings: Settings,
    model_type: str,
    plan: Callable[[], ModelPlan] | None,
    queue: JobQueue | None = None,
) -> Ready:
    """What of the kept cases the model can learn from, and how long the last job of the queue took.

    Args:
        plan: asks for the model's plan, once there is something to learn from; None for a kind of model that the
            plugin cannot improve.

    Raises:
        DanteError: something cannot be read, or `plan` cannot be had.
    """
    if not model_type:
        return Ready("", missing=words.NO_MODEL)
    if not settings.server:
        return Ready(model_type, missing=words.NO_SERVER)
    address = _address(settings.server)
    if plan is None:
        return Ready(model_type, missing=words.OTHER_KIND, server=address)
    headers = _headers(settings)
    if not headers:
        return Ready(model_type, missing=words.NOTHING_KEPT, can_send=True, server=address)
    known = plan()
    found = usable_cases(headers, known, reading_of(settings.annotations))
    step, studies = known_step(settings, model_type), max(1, found.cases)
    minutes = settings.worker.job_minutes or None
    return Ready(
        model_type,
        kept=len(headers),
        cases=found.cases,
        slices=found.slices,
        labels=found.labels,
        left=tuple(_left_sentence(one, found.suggestions) for one in found.left),
        suggestions=found.suggestions,
        missing=_more_sentence(found, known.labels),
        can_send=True,
        last_s=_last_seconds(queue, model_type) if queue is not None else 0.0,
        about_s=expected_seconds(step, studies, minutes=minutes) if step else 0.0,
        server=address,
        sent_bytes=_last_sizes(queue, model_type) if queue is not None else {},
        about_bytes={name: expected_bytes(step, name, studies) for name in words.METHODS} if step else {},
    )


def _headers(settings: Settings) -> list[CaseHeader]:
    if not store_exists(settings):
        return []
    return [case.header for case in open_case_store(settings, say=lambda text: None).cases()]


def _left_sentence(left: LeftOut, suggestions: Sequence[Suggestion]) -> str:
    studies = words.counted(words.STUDIES_LEFT, left.cases)
    if left.contrasts:
        return words.LEFT_CONTRASTS.format(studies=studies, contrasts=words.counted(words.CONTRASTS, left.contrasts))
    likely = {one.name: words.PERHAPS.format(label=one.labels[0]) for one in suggestions if one.labels}
    unknown = words.listed([f"{name}{likely.get(name, '')}" for name in left.unknown])
    foreign = words.LEFT_UNKNOWN.format(names=unknown) if unknown else ""
    return words.LEFT_MISSING.format(studies=studies, labels=words.listed(left.missing), foreign=foreign)


def _more_sentence(found: UsableCases, labels: Sequence[str]) -> str:
    if not found.more_studies:
        return ""
    more = words.counted(words.MORE_STUDIES, found.more_studies, labels=words.listed(labels))
    return more + (words.counted(words.MORE_SLICES, found.more_slices) if found.more_slices else "")


def job_lines(queue: JobQueue) -> list[JobLine]:
    """All jobs, the newest first; StorageError where the queue cannot be read."""
    return [_line(job, queue.folder_of(job.job_id)) for job in reversed(queue.jobs())]


def local_lines(settings: Settings, newer: Mapping[str, str] | None = None) -> list[LocalLine]:
    """Every type with improved models; `newer`: the global version that Dafne found of a type; DanteError as read."""
    return [
        _local_line(local_shelf(settings, model_type).state(), (newer or {}).get(model_type, ""))
        for model_type in local_types(settings)
    ]


def _local_line(state: LocalState, newest: str) -> LocalLine:
    current, model_type = state.current, state.model_type
    if current is None:
        told = words.GLOBAL_USED.format(model_type=model_type, status=state.status)
        return LocalLine(model_type, told, is_improved=False)
    if int(newest or 0) > int(state.seen or 0):
        told = f"{words.NEWER_USED.format(model_type=model_type, version=newest)}."
        return LocalLine(model_type, told, is_improved=True)
    # That it was improved here is said already; what else became of it is news.
    status = "" if state.status.startswith(_IMPROVED) else f" ({state.status})"
    told = words.IMPROVED_USED.format(
        model_type=model_type, before=current.before, after=current.after, status=status
    )  # fmt: skip
    return LocalLine(model_type, told, is_improved=True)


def version_lines(settings: Settings, model_type: str) -> list[VersionLine]:
    """The global model and every improved one that is kept, the newest first; DanteError as `local_lines`."""
    state = local_shelf(settings, model_type).state()
    improved = [VersionLine(one.number, _version(one), one.number == state.chosen) for one in reversed(state.versions)]
    return [*improved, VersionLine(0, words.GLOBAL_MODEL, state.current is None)]


def _version(one: LocalVersion) -> str:
    when = local_moment(one.created_s)
    return words.IMPROVED_MODEL.format(number=one.number, before=one.before, after=one.after, when=when)


def case_lines(settings: Settings) -> list[CaseLine]:
    """Every kept case, the newest first; DanteError where the store cannot be read."""
    return [
        CaseLine(
            one.case_id,
            words.CASE.format(
                when=local_moment(one.saved_ns / 1e9), slices=words.counted(words.SLICES, one.annotated_slices)
            ),
        )
        for one in sorted(_headers(settings), key=lambda header: -header.saved_ns)
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
    when = local_moment(queue.get(first.job_id).changed_s)
    return words.STATUS_IMPROVED.format(model_type=first.model_type, when=when, before=before, after=after, sent=sent)


def _last_seconds(queue: JobQueue, model_type: str) -> float:
    for job in reversed(queue.jobs()):
        seconds = _summary(queue.folder_of(job.job_id)).get("seconds") if job.model_type == model_type else None
        if isinstance(seconds, int | float):
            return float(seconds)
    return 0.0


def _last_sizes(queue: JobQueue, model_type: str) -> Mapping[str, int]:
    """Bytes of the last update of each method that was asked for."""
    found: dict[str, int] = {}
    for job in queue.jobs():
        size = _summary(queue.folder_of(job.job_id)).get("delta_bytes") if job.model_type == model_type else None
        if isinstance(size, int):
            found[job.options.method] = size
    return found


def _address(server: str) -> str:
    """Without a name or a password that somebody may have written into it."""
    parts = urlsplit(server)
    return f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"


def _summary(folder: Path) -> Mapping[str, Any]:
    path = folder / _OUT / _SUMMARY
    return _object(read_bounded(path, max_bytes=_MOST_BYTES).decode(errors="replace")) if path.is_file() else {}


def _mean(dice: Any) -> float | None:
    mean = dice.get("mean") if isinstance(dice, dict) else None
    return float(mean) if isinstance(mean, int | float) else None


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
        job.state == "running",
        job.state == "running" and has_checkpoint(folder),
    )


def _told(job: Job) -> str:
    if job.state == "queued":
        return words.WAITS if job.trigger == "saved" else ""
    return job.told if job.state != "running" else _progress(_object(job.progress))


def _progress(values: Mapping[str, Any]) -> str:
    """How far, then what had to be done without, then what is done now; whatever of it is known."""
    told = [_how_far(values), *(str(values[name]) for name in ("fallback", "stage") if values.get(name))]
    return "; ".join(part for part in told if part)


def _how_far(values: Mapping[str, Any]) -> str:
    parts = []
    training, trainings = (_number(values.get(name)) for name in ("training", "trainings"))
    if training and trainings and trainings > 1:
        parts.append(words.TRAINING.format(training=round(training), trainings=round(trainings)))
    epoch = _number(values.get("training_epoch", values.get("epoch")))
    epochs = _number(values.get("training_epochs", values.get("epochs")))
    if epoch:
        parts.append(words.EPOCH.format(epoch=round(epoch), epochs=round(epochs) if epochs else "?"))
    dice, left_s = _number(values.get("dice")), _number(values.get("left_s"))
    if epoch and dice is not None:
        parts.append(f"Dice {dice:.2f}")
    if left_s is not None:
        parts.append(words.LEFT.format(minutes=max(1, round(left_s / _SECONDS_A_MINUTE))))
    return ", ".join(parts)


def _number(value: Any) -> float | None:
    """What another process wrote, where it is a number."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_one else None


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
