"""The life of an update that is to leave the site, as pure functions.

    waiting --begin--> sending --arrive--> sent
       ^  ^               |  |
       |  +---- wait -----+  +--refuse--> refused
       +------------ retry ------------------+
    waiting, refused --cancel--> cancelled

Terms: `waiting` says `why` (WORDS explains each); it is tried again at `next_try_s`, or, where that is None (*held*),
only when a person says so or the settings are others than those whose mark is `held_by`. A try is *doubtful* when its
answer was lost: the server may have the update. An entry is of a *kind*: a delta, or the withdrawal of one that left
(withdrawal.py). Both go only to a type whose operator takes deltas; a delta may also leave as a full model, where the
site allows it (full_model_route.py).

Invariants
- sent and cancelled are for ever, and such an update is never queued again; attempts and doubtful only grow.
- No wait outlasts a clock that is set back: before the moment of its last change, an entry is due.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from dafne_dante.errors import DeltaError

__all__ = [
    "STATES",
    "WORDS",
    "Entry",
    "Kind",
    "Patience",
    "State",
    "arrive",
    "begin",
    "cancel",
    "is_due",
    "refuse",
    "retry",
    "wait",
]

State = Literal["waiting", "sending", "sent", "refused", "cancelled"]
Kind = Literal["delta", "withdrawal"]
STATES: tuple[State, ...] = get_args(State)

WORDS: Mapping[str, str] = {
    "new": "it was not tried yet",
    "offline": "the server cannot be reached",
    "no-deltas": "the model's type does not say that its operator takes deltas",
    "no-type": "the server knows no such model type",
    "seal-key": "the model's type does not name the seal key that is pinned here",
    "no-form": "it cannot be brought into the form that the model's type takes",
    "unknown-full": "the answer was lost, and a full model that arrives twice counts twice; a person decides",
    "permission": "the server refuses the key, or the key lacks the permission",
    "too-large": "it is larger than the server takes",
    "address": "the server does not understand the call, or sends elsewhere",
    "server": "the server's answer is not what the protocol says",
    "unknown": "the answer was lost: the server may have it; it is sent again, and counted once",
    "interrupted": "the program ended while it was being sent",
    "storage": "this machine's disk refused",
    "retried": "a person asked for another try",
    "damaged": "its file here is missing or damaged",
    "refused": "the server does not take it",
    "": "",
}


@dataclass(frozen=True)
class Entry:
    """One update.

    Attributes:
        update_id: uuid4 as text; of a withdrawal, one of its own.
        kind: what is in the file.
        server: base URL; it is never sent anywhere else.
        model_type: its name on that server.
        sha256, size_bytes: of the file.
        dice: on held-out cases, which goes with the upload.
        trigger: what made the site make it: command, improve-button, nightly, annotation-saved, withdraw.
        queued_s, changed_s: since 1970, by this machine's clock.
        state, why: see above; `told` is the last error in words.
        attempts: tries that were begun; `failures` since the last success or retry; `doubtful` of them.
        next_try_s: since 1970; None when held.
        held_by: mark of the settings with which it failed; "" when not held.
        withdraws: of a withdrawal, the update_id of what is taken back; else "".
    """

    update_id: str
    kind: Kind
    server: str
    model_type: str
    sha256: str
    size_bytes: int
    dice: float
    trigger: str
    queued_s: float
    changed_s: float
    state: State = "waiting"
    why: str = "new"
    told: str = ""
    attempts: int = 0
    failures: int = 0
    doubtful: int = 0
    next_try_s: float | None = 0.0
    held_by: str = ""
    withdraws: str = ""


@dataclass(frozen=True)
class Patience:
    """The pause before the next try: twice as long after every failure, drawn from its upper half."""

    first_s: float = 60.0
    longest_s: float = 6 * 3600.0

    def pause_s(self, failures: int, share: float, asked_s: float | None = None) -> float:
        """Seconds after failure number `failures` (1 is the first); `share` in [0, 1) is the draw.

        `asked_s` is what the server asked for; it is obeyed up to `longest_s`.
        """
        highest = min(self.first_s * 2.0 ** min(max(failures - 1, 0), 60), self.longest_s)
        return min(self.longest_s, max(highest * (0.5 + 0.5 * share), asked_s or 0.0))


def is_due(entry: Entry, now_s: float, mark: str) -> bool:
    """Whether it is to be tried now, under settings of this mark."""
    if entry.state != "waiting":
        return False
    if entry.next_try_s is None:
        return entry.held_by != mark
    return now_s >= entry.next_try_s or now_s < entry.changed_s


def begin(entry: Entry, now_s: float) -> Entry:
    """Its bytes are about to leave."""
    _expect(entry, "waiting")
    return replace(entry, state="sending", why="", changed_s=now_s, attempts=entry.attempts + 1, held_by="")


def arrive(entry: Entry, now_s: float) -> Entry:
    """The server has it."""
    _expect(entry, "sending")
    return replace(entry, state="sent", why="", told="", changed_s=now_s, failures=0, next_try_s=None)


def wait(
    entry: Entry, now_s: float, *, why: str, told: str = "", pause_s: float | None, mark: str = "", doubtful: bool
) -> Entry:
    """It was tried, or could not be, and stays; `pause_s` None holds it until the settings' mark is another."""
    _expect(entry, "waiting", "sending")
    return replace(
        entry,
        state="waiting",
        why=why,
        told=told,
        changed_s=now_s,
        failures=entry.failures + 1,
        doubtful=entry.doubtful + doubtful,
        next_try_s=None if pause_s is None else now_s + pause_s,
        held_by=mark if pause_s is None else "",
    )


def refuse(entry: Entry, now_s: float, *, why: str, told: str) -> Entry:
    """Another try would change nothing."""
    _expect(entry, "waiting", "sending")
    return replace(entry, state="refused", why=why, told=told, changed_s=now_s, next_try_s=None, held_by="")


def retry(entry: Entry, now_s: float) -> Entry:
    """A person wants it to be tried now."""
    _expect(entry, "waiting", "refused")
    return replace(
        entry, state="waiting", why="retried", changed_s=now_s, failures=0, next_try_s=now_s, held_by=""
    )  # fmt: skip


def cancel(entry: Entry, now_s: float) -> Entry:
    """A person does not want it to leave."""
    _expect(entry, "waiting", "refused")
    return replace(entry, state="cancelled", why="", changed_s=now_s, next_try_s=None, held_by="")


_ADVICE: Mapping[State, str] = {
    "waiting": "see dafne-dante outbox list",
    "sending": "wait until it is done",
    "sent": "it has left; dafne-dante withdraw takes it back",
    "refused": "see dafne-dante outbox show",
    "cancelled": "improve again for another update",
}


def _expect(entry: Entry, *allowed: State) -> None:
    if entry.state not in allowed:
        raise DeltaError(
            f"expected an update that is {' or '.join(allowed)}, found that it is {entry.state}; {_ADVICE[entry.state]}"
        )
