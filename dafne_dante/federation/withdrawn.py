"""What an operator does about a withdrawal: pure functions on the ledger.

Terms: an update is *withdrawn* when its ledger entry has the minute of its withdrawal; it is *held* by a version whose
weights it moved, itself or through an ancestor.

Invariants: an update is withdrawn by the key that signed it and by no other; a withdrawn update is never taken again,
also when it comes after its withdrawal; what was published stays published until the operator acts.
"""

from dataclasses import replace

from dafne_dante.errors import DeltaSignatureError
from dafne_dante.federation.ledger import Entry, Ledger
from dafne_dante.federation.withdrawal import Withdrawal

__all__ = ["WITHDRAWN", "after_withdrawal", "versions_that_hold", "withdrawal_in_words"]

WITHDRAWN = "withdrawn by its site"


def after_withdrawal(ledger: Ledger, withdrawal: Withdrawal) -> Ledger:
    """The ledger that knows of it; DeltaSignatureError when another key signed the update."""
    known = ledger.updates.get(withdrawal.update_id)
    if known is None:
        entry = Entry("", withdrawal.public_key, "", "", reason=WITHDRAWN, withdrawn=withdrawal.created)
    elif known.public_key != withdrawal.public_key:
        raise DeltaSignatureError("expected a withdrawal by the site that sent the update, found one by another")
    else:
        entry = replace(known, withdrawn=known.withdrawn or withdrawal.created)
    return replace(ledger, updates={**ledger.updates, withdrawal.update_id: entry})


def versions_that_hold(ledger: Ledger, update_id: str) -> tuple[str, ...]:
    """Every version whose weights the update moved, oldest first."""
    return tuple(version for version in sorted(ledger.versions, key=int) if update_id in ledger.held_by(version))


def withdrawal_in_words(ledger: Ledger, update_id: str) -> str:
    """What became of a withdrawn update, and what the operator can do."""
    held = versions_that_hold(ledger, update_id)
    if not held:
        return f"update {update_id} is withdrawn: no version holds it, and none will"
    before = ledger.lineage(held[0])[1:2]
    cure = (
        f"publish rebuild --without {update_id} makes the newest without it, publish rollback {before[0]} brings back "
        "the one before"
        if before
        else "there is none before"
    )
    return f"update {update_id} is withdrawn: versions {', '.join(held)} hold it; {cure}"
