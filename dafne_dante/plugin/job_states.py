"""The life of a job, which improves one model from the site's cases, as pure functions.

    queued --claim--> running --finish--> done, failed, cancelled
      |                  |  ^
      |                  +--+ take over, when its holder is gone
      +----cancel----> cancelled

Terms: the *trigger* is what asked for the job: a correction that was "saved", a "nightly" run, or a person's "button".
The *holder* of a running job is the one process that works on it (see `job_holder`). A *wish* to stop it says what is
to stay: "keep" the best so far, or "drop" everything.

Invariants
- done, failed and cancelled are for ever.
- A wish for one model joins the job that is queued for it; the stronger trigger gives the choices, and only a job
  that corrections alone asked for is put off again.
- No pause outlasts a clock that is set back: before the moment of its last change, a job is due.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from dafne_dante.errors import SettingsError, StorageError, TrainingError

__all__ = [
    "STATES",
    "UNTRIED",
    "Job",
    "JobOptions",
    "State",
    "Trigger",
    "Wish",
    "ask_to_stop",
    "claim",
    "finish",
    "is_due",
    "join",
    "object_in",
    "options_from_json",
    "options_to_json",
]

State = Literal["queued", "running", "done", "failed", "cancelled"]
Trigger = Literal["saved", "nightly", "button"]
Wish = Literal["", "keep", "drop"]
STATES: tuple[State, ...] = get_args(State)
UNTRIED = -1
"""See `Job.learned_until_ns`: the server was away, for example, so that the same cases are worth another job."""

_STRENGTH: Mapping[Trigger, int] = {"saved": 0, "nightly": 1, "button": 2}
_FINAL: tuple[State, ...] = ("done", "failed", "cancelled")
_MAX_TEXT = 4096
_WITHOUT_MINUTES: Mapping[str, Any] = {"minutes": None}


@dataclass(frozen=True)
class JobOptions:
    """What a job is to do.

    Attributes:
        base: path of the `.model` file to improve; "" pulls the newest of the model type.
        data: folders of labelled studies; none for the cases that the site keeps.
        method: of adaptation, or auto.
        epochs: None for the default.
        seed: of everything that is drawn.
        upload: send the update when the gate passes.
        server: base URL; "" for the settings'.
        minutes: that training may take where auto chooses; None for no limit.
    """

    base: str = ""
    data: tuple[str, ...] = ()
    method: str = "auto"
    epochs: int | None = None
    seed: int = 0
    upload: bool = False
    server: str = ""
    minutes: float | None = None


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        job_id: uuid4 as text.
        model_type: the model that is improved.
        created_s, changed_s: since 1970, by this machine's clock.
        not_before_s: when a queued job is due.
        told: how it ended, in words.
        progress: the last that its worker said, as a JSON object; "" before.
        holder: who works on it, or did last; "" before. See `job_holder`.
        heartbeat_s: when the holder last said that it works.
        attempts: how often it was claimed.
        wish: see above.
        learned_until_ns: nanoseconds since 1970 of the newest case that it could learn from; 0 when not known;
            `UNTRIED` when it failed before it came to any case.
    """

    job_id: str
    model_type: str
    trigger: Trigger
    created_s: float
    changed_s: float
    not_before_s: float
    options: JobOptions = field(default_factory=JobOptions)
    state: State = "queued"
    told: str = ""
    progress: str = ""
    holder: str = ""
    heartbeat_s: float = 0.0
    attempts: int = 0
    wish: Wish = ""
    learned_until_ns: int = 0


def is_due(job: Job, now_s: float) -> bool:
    """Whether a queued job is to begin now."""
    return job.state == "queued" and (now_s >= job.not_before_s or now_s < job.changed_s)


def join(queued: Job, wanted: Job) -> Job:
    """The one job that does what both ask for; the later one is `wanted`."""
    if _STRENGTH[wanted.trigger] < _STRENGTH[queued.trigger]:
        return queued
    # Corrections put off what corrections asked for; a person or the night is not made to wait.
    later = max(queued.not_before_s, wanted.not_before_s) if wanted.trigger == "saved" else wanted.not_before_s
    return replace(
        queued, trigger=wanted.trigger, options=wanted.options, not_before_s=later, changed_s=wanted.changed_s
    )  # fmt: skip


def claim(job: Job, holder: str, now_s: float) -> Job:
    """A process begins it, or goes on with what a process left that is gone."""
    if job.state not in ("queued", "running"):
        raise TrainingError(f"expected a job that is queued or running, found that it is {job.state}; begin another")
    return replace(
        job, state="running", holder=holder, heartbeat_s=now_s, changed_s=now_s, attempts=job.attempts + 1, told=""
    )  # fmt: skip


def finish(job: Job, state: State, told: str, now_s: float, *, learned_until_ns: int = 0) -> Job:
    """Its holder is through with it."""
    if job.state != "running" or state not in _FINAL:
        raise TrainingError(f"expected a running job to end, found one that is {job.state}; see dafne-dante jobs list")
    return replace(
        job, state=state, told=told[:_MAX_TEXT], changed_s=now_s, learned_until_ns=learned_until_ns
    )  # fmt: skip


def ask_to_stop(job: Job, wish: Wish, now_s: float) -> Job:
    """A person does not want it: a queued job is cancelled, a running one learns of the wish from its row."""
    if job.state == "queued":
        return replace(job, state="cancelled", told="cancelled before it began", changed_s=now_s)
    if job.state == "running":
        return replace(job, wish=wish, changed_s=now_s)
    raise TrainingError(f"expected a job that is queued or running, found that it is {job.state}; nothing to cancel")


def options_to_json(options: JobOptions) -> str:
    """The options as one line of JSON; SettingsError when they are absurdly long."""
    text = json.dumps(asdict(options), sort_keys=True)
    if len(text) > 1 << 16:
        raise SettingsError("expected options of a job of at most 64 KiB, found more; name fewer folders")
    return text


def object_in(text: str) -> dict[str, Any]:
    """The JSON object that another process wrote, such as `Job.progress`; an empty one for any other text."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def options_from_json(text: str) -> JobOptions:
    """The reverse of `options_to_json`; StorageError for anything else, since it was kept on a disk.

    What an older version of this program did not know is as it is by default.
    """
    try:
        found = json.loads(text)
        found = {**_WITHOUT_MINUTES, **found} if isinstance(found, dict) else found
        names = {item.name for item in fields(JobOptions)}
        if not isinstance(found, dict) or set(found) != names or not _fits(found):
            raise ValueError("other options")
    except (ValueError, RecursionError) as error:
        raise StorageError("expected the options of a job, found something else; restore the jobs' folder") from error
    return JobOptions(**{**found, "data": tuple(found["data"])})


def _fits(found: Mapping[str, Any]) -> bool:
    texts = all(isinstance(found[name], str) for name in ("base", "method", "server"))
    data = isinstance(found["data"], list) and all(isinstance(one, str) for one in found["data"])
    epochs = found["epochs"] is None or type(found["epochs"]) is int
    minutes = found["minutes"] is None or (type(found["minutes"]) in (int, float) and found["minutes"] > 0)
    return texts and data and epochs and minutes and type(found["seed"]) is int and isinstance(found["upload"], bool)
