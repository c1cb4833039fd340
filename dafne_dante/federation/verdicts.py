"""What the end of a try means: for the update in the outbox, and for the audit log.

Terms: an *outcome* is what is known of the bytes: `arrived`, `not-arrived` (the server cannot have them all), `refused`
(it got them and said no) or `unknown` (the answer was lost, or a server's fault: it may have kept them). `why` is one
of outbox_states.WORDS.

Invariants: what only a person or other settings can change (401, 403, 400, too large) is held; what may pass is tried
again; a status that says that the server will never take it ends the tries. After `_MOST_DOUBTFUL` tries that may have
arrived it is held as well, so that a server that keeps everything and answers nothing is not filled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dafne_dante.errors import (
    AccessDeniedError,
    DanteError,
    ServerAnswerError,
    ServerUnreachableError,
    StorageError,
    UploadUnknownError,
)
from dafne_dante.federation.outbox_states import Entry, Patience, arrive, refuse, wait

__all__ = ["ARRIVED", "Verdict", "judge", "settle", "verdict_of_record"]

_HELD = frozenset({"permission", "too-large", "address", "seal-key", "no-form", "unknown-full"})
_MOST_DOUBTFUL = 5
_TOO_LARGE_401 = "(401); for an upload"  # what answers.py says of a 401 to an upload


@dataclass(frozen=True)
class Verdict:
    """The end of a try; `asked_s` is the pause that the server asked for."""

    outcome: str
    why: str = ""
    told: str = ""
    asked_s: float | None = None


ARRIVED = Verdict("arrived")


def judge(error: DanteError, *, uploading: bool) -> Verdict:
    """What a failure means; `uploading`: bytes of the update were leaving, else the server was only asked."""
    outcome, why = _meaning(error, uploading=uploading)
    asked_s = error.retry_after_s if isinstance(error, ServerUnreachableError) else None
    return Verdict(outcome if uploading else "not-arrived", why, str(error), asked_s)


def settle(entry: Entry, now_s: float, *, verdict: Verdict, patience: Patience, share: float, mark: str) -> Entry:
    """The update after its try; `share` in [0, 1) draws the pause, `mark` is that of the settings."""
    if verdict.outcome == "arrived":
        return arrive(entry, now_s)
    if verdict.why in ("refused", "damaged"):
        return refuse(entry, now_s, why=verdict.why, told=verdict.told)
    doubtful = verdict.outcome == "unknown"
    held = verdict.why in _HELD or (doubtful and entry.doubtful + 1 >= _MOST_DOUBTFUL)
    pause_s = None if held else patience.pause_s(entry.failures + 1, share, verdict.asked_s)
    return wait(
        entry,
        now_s,
        why=verdict.why,
        told=verdict.told,
        pause_s=pause_s,
        mark=mark,
        doubtful=doubtful,
    )


def verdict_of_record(record: Mapping[str, Any]) -> Verdict:
    """What the audit log knows of the end of a try whose program died before the outbox knew it."""
    return Verdict(str(record.get("outcome")), str(record.get("why")), "the program ended right after it was sent")


def _meaning(error: DanteError, *, uploading: bool) -> tuple[str, str]:
    """Outcome and why."""
    if isinstance(error, UploadUnknownError):
        return "unknown", "unknown"
    if isinstance(error, ServerUnreachableError):
        return "not-arrived", "offline"
    if isinstance(error, StorageError):
        return "not-arrived", "storage"
    if isinstance(error, AccessDeniedError):
        # The key was good a moment ago, when the server was asked about the type (DAFNE.md section 2).
        return "refused", "too-large" if uploading and _TOO_LARGE_401 in str(error) else "permission"
    if isinstance(error, ServerAnswerError):
        return _meaning_of_status(error.status)
    return "unknown", "server"


def _meaning_of_status(status: int) -> tuple[str, str]:
    if status == 413:
        return "refused", "too-large"
    if status == 404:
        return "refused", "no-type"
    if status == 400 or 300 <= status < 400:
        return "refused", "address"
    if 400 < status < 500:
        return "refused", "refused"
    return "unknown", "server"  # also 500: a server may have kept the file and then failed
