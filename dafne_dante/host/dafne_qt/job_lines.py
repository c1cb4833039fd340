"""Jobs in words, for the Activity window and the status; no Qt here.

Invariants as in `readiness`; of what another process wrote only what is of the expected kind is believed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.moments import local_moment
from dafne_dante.host.dafne_qt.summaries import job_summary, report_of
from dafne_dante.plugin.job_run import has_checkpoint
from dafne_dante.plugin.job_states import Job, object_in
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.report.words import bytes_in_words

__all__ = ["JobLine", "job_lines", "status_sentence"]

_SECONDS_A_MINUTE = 60


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


def job_lines(queue: JobQueue) -> list[JobLine]:
    """All jobs, the newest first; StorageError where the queue cannot be read."""
    return [_line(job, queue.folder_of(job.job_id)) for job in reversed(queue.jobs())]


def status_sentence(queue: JobQueue, jobs: list[JobLine]) -> str:
    """One line on what goes on, or what the last job came to; "" before the first."""
    first = next((job for job in jobs if job.is_alive), jobs[0] if jobs else None)
    if first is None:
        return ""
    summary = job_summary(queue.folder_of(first.job_id)) if not first.is_alive else {}
    before, after = (_mean(summary.get(name)) for name in ("dice_before", "dice_after"))
    if summary.get("gate") != "passed" or before is None or after is None:
        return f"{first.model_type}: {first.state}, {first.told}"
    size = summary.get("delta_bytes")
    sent = words.STATUS_SENT.format(size=bytes_in_words(size)) if summary.get("uploaded") and size else ""
    when = local_moment(queue.get(first.job_id).changed_s)
    return words.STATUS_IMPROVED.format(model_type=first.model_type, when=when, before=before, after=after, sent=sent)


def _mean(dice: Any) -> float | None:
    mean = dice.get("mean") if isinstance(dice, dict) else None
    return float(mean) if isinstance(mean, int | float) else None


def _line(job: Job, folder: Path) -> JobLine:
    return JobLine(
        job.job_id,
        job.model_type,
        words.TRIGGERS[job.trigger],
        words.STATES[job.state],
        _told(job),
        job.state in ("queued", "running"),
        report_of(folder),
        job.state == "running",
        job.state == "running" and has_checkpoint(folder),
    )


def _told(job: Job) -> str:
    if job.state == "queued":
        return words.WAITS if job.trigger == "saved" else ""
    return job.told if job.state != "running" else _progress(object_in(job.progress))


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
