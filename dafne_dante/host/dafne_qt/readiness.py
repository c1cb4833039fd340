"""What an improvement would learn from: whether a model is ready, how long it takes, what it sends; no Qt here.

Invariants: it may take a while (disk, a database), so it is called away from the thread that paints; what cannot be
read is a DanteError, whose words are shown; nothing is changed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dafne_dante.annotations.suggestions import Suggestion
from dafne_dante.config import Settings
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.kept import kept_headers
from dafne_dante.host.dafne_qt.summaries import job_summary
from dafne_dante.models.plan import ModelPlan
from dafne_dante.plugin.collecting import reading_of
from dafne_dante.plugin.estimating import expected_bytes, expected_seconds
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.step_times import known_step
from dafne_dante.plugin.usable import LeftOut, UsableCases, usable_cases

__all__ = ["Ready", "ready_to_improve"]


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
    headers = kept_headers(settings)
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


def _last_seconds(queue: JobQueue, model_type: str) -> float:
    for job in reversed(queue.jobs()):
        seconds = job_summary(queue.folder_of(job.job_id)).get("seconds") if job.model_type == model_type else None
        if isinstance(seconds, int | float):
            return float(seconds)
    return 0.0


def _last_sizes(queue: JobQueue, model_type: str) -> Mapping[str, int]:
    """Bytes of the last update of each method that was asked for."""
    found: dict[str, int] = {}
    for job in queue.jobs():
        size = job_summary(queue.folder_of(job.job_id)).get("delta_bytes") if job.model_type == model_type else None
        if isinstance(size, int):
            found[job.options.method] = size
    return found


def _address(server: str) -> str:
    """Without a name or a password that somebody may have written into it."""
    parts = urlsplit(server)
    return f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
