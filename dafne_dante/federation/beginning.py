"""What every deed of an operator begins with: what a run before has left is settled, and the depot's word is checked.

Invariants: the ledger is saved only after the checks, so a depot that is not trusted changes nothing on this side;
without a signing key an operator takes a version that nobody knows yet for what it is, as its clients do.
"""

from dataclasses import dataclass

from dafne_dante.config import Settings
from dafne_dante.delta.signing import SIGNING_KEY_FILE, load_signing_key, public_key_text
from dafne_dante.errors import UntrustedVersionError
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.known_versions import KnownVersions
from dafne_dante.federation.ledger import Ledger, Store
from dafne_dante.federation.operator_turn import operator_folder
from dafne_dante.federation.publishing import Publisher
from dafne_dante.federation.vouching import check_listed, check_unchanged, check_vouched

__all__ = ["Begun", "begin", "own_public_key"]


@dataclass(frozen=True)
class Begun:
    """Where a deed goes on from; `ledger` is what lies on the disk."""

    store: Store
    publisher: Publisher
    ledger: Ledger


def begin(
    depot: Depot, model_type: str, settings: Settings, known: KnownVersions, *, builds_on_newest: bool = True
) -> Begun:
    """Settle what a run before has left, and remember the versions; the caller has the operator's turn.

    Args:
        known: of this depot; it is filled in.
        builds_on_newest: whether the newest version must be trusted; else one that is not is left out of the ledger.

    Raises:
        UntrustedVersionError: see `vouching`.
        TransportError, StorageError: as the depot and the store.
    """
    store = Store(operator_folder(settings.folder, model_type))
    publisher, before = Publisher(depot, model_type, settings, store), store.load()
    known.look_up(before)
    ledger, key = publisher.settle(before, known.digests), own_public_key(settings)
    try:
        _check(known, ledger, key, model_type)
    except UntrustedVersionError:
        if builds_on_newest:
            raise
    else:
        ledger = known.remembered(ledger, (known.newest,) if key else known.versions)
    if ledger != before:
        store.save(ledger)
    return Begun(store, publisher, ledger)


def own_public_key(settings: Settings) -> str:
    """The operator's public key, "" where there is none."""
    if not (settings.folder / SIGNING_KEY_FILE).exists():
        return ""
    return public_key_text(load_signing_key(settings.folder))


def _check(known: KnownVersions, ledger: Ledger, public_key: str, model_type: str) -> None:
    newest, model = known.newest, known.current
    check_listed(known.listed, ledger)
    check_unchanged(newest, model, known.files[newest], ledger)
    check_vouched(newest, model, ledger, public_key=public_key, model_type=model_type, is_newest=True)
