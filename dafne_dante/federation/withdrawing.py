"""A site takes an update back: out of its outbox, or from the operator by a signed withdrawal.

Invariants: what certainly never left is cancelled and nobody is told; of all else the withdrawal goes to the server
that the update went to, and the audit log has it before it leaves and what came of it. It can be sent any number of
times.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dafne_dante.durable import write_atomically
from dafne_dante.errors import DeltaError, StorageError, TransportError
from dafne_dante.federation.outbox import Outbox
from dafne_dante.federation.outbox_states import Entry
from dafne_dante.federation.sending import Uploads, cancel_update
from dafne_dante.federation.withdrawal import make_withdrawal

__all__ = ["WithdrawnUpdate", "begin_withdrawal", "send_withdrawal"]


@dataclass(frozen=True)
class WithdrawnUpdate:
    """What is to be done: the update as it is now, and the withdrawal to send; b"" when it never left."""

    entry: Entry
    content: bytes


def begin_withdrawal(outbox: Outbox, name: str, key: Ed25519PrivateKey) -> WithdrawnUpdate:
    """Cancel the update of this name where it still waits, and make a withdrawal unless it certainly never left.

    Raises:
        DeltaError: there is no such update, it is no delta, or it is being sent right now.
        StorageError: the disk refuses.
    """
    entry = outbox.find(name)
    if entry.kind != "delta":
        raise DeltaError("expected a delta to withdraw, found a full model, which nobody signed; ask the operator")
    if entry.state not in ("sent", "cancelled"):
        entry = cancel_update(outbox, entry.update_id)
    packed = any(
        record.get("event") == "packed" and record.get("update_id") == entry.update_id
        for record in outbox.audit.records()
    )
    left = entry.state == "sent" or entry.doubtful > 0 or packed
    return WithdrawnUpdate(entry, make_withdrawal(entry.update_id, entry.model_type, key) if left else b"")


def send_withdrawal(outbox: Outbox, withdrawn: WithdrawnUpdate, client: Uploads) -> None:
    """Send a withdrawal to the update's server, which `client` is of.

    Raises:
        TransportError: it has not arrived, or the type takes no deltas, so that it would block its queue.
        StorageError: the disk refuses.
    """
    entry = withdrawn.entry
    if client.model_info(entry.model_type).capability is None:
        raise TransportError("expected a type that takes deltas, found one that does not; write to its operator")
    facts = {"update_id": entry.update_id, "to": entry.server, "model_type": entry.model_type}
    outbox.remember(outbox.audit.append("withdrawing", facts))
    outcome = "arrived"
    try:
        with tempfile.TemporaryDirectory(prefix="dafne-dante-") as folder:
            path = Path(folder) / "withdrawal"
            write_atomically(path, withdrawn.content)
            client.upload(entry.model_type, path, 0.0)
    except (TransportError, StorageError):
        outcome = "unknown"
        raise
    finally:
        outbox.remember(outbox.audit.append("withdrawn", {**facts, "outcome": outcome}))
