"""A site takes an update back: out of its outbox, or from the operator by a signed withdrawal.

Invariants: what certainly never left is cancelled and nobody is told; of all else a withdrawal is queued in the outbox
in the same moment in which the update is cancelled, so that none is ever forgotten; from there it goes as updates do,
to the server that the update went to, with the same records in the audit log. It can be sent any number of times.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dafne_dante.errors import DeltaError
from dafne_dante.federation.outbox import Outbox
from dafne_dante.federation.outbox_states import Entry
from dafne_dante.federation.sending import settle_dead
from dafne_dante.federation.withdrawal import make_withdrawal

__all__ = ["WithdrawnUpdate", "begin_withdrawal", "was_packed"]


@dataclass(frozen=True)
class WithdrawnUpdate:
    """The update as it is now, and the withdrawal that waits in the outbox; None when the update never left."""

    entry: Entry
    withdrawal: Entry | None


def begin_withdrawal(outbox: Outbox, name: str, key: Ed25519PrivateKey) -> WithdrawnUpdate:
    """Cancel the update of this name where it still waits, and queue a withdrawal unless it certainly never left.

    Raises:
        DeltaError: there is no such update, it is a withdrawal itself, or it is being sent right now.
        StorageError: the disk refuses.
    """
    entry = outbox.find(name)
    if entry.kind != "delta":
        raise DeltaError(
            "expected an update to withdraw, found a withdrawal; dafne-dante outbox cancel takes that back"
        )
    settle_dead(outbox, entry)

    def statement(found: Entry) -> bytes:
        return make_withdrawal(found.update_id, found.model_type, key)

    packed = was_packed(outbox, entry.update_id)
    return WithdrawnUpdate(*outbox.take_back(entry.update_id, statement, packed=packed))


def was_packed(outbox: Outbox, update_id: str) -> bool:
    """Whether an update went into a bundle, which may have been handed over."""
    return any(
        record.get("event") == "packed" and record.get("update_id") == update_id for record in outbox.audit.records()
    )
