"""An operator takes over the newest version of a depot, whoever put it there.

It is for what nothing vouches for (`vouching`): a type that others published, a version that was put back from a copy,
a newest version that was taken away on purpose.

Invariants: nothing is published, and no update is forgotten: what versions held that have gone is not taken again.
"""

from dataclasses import dataclass, replace

from dafne_dante.config import Settings
from dafne_dante.errors import SettingsError
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.known_versions import KnownVersions
from dafne_dante.federation.ledger import Store
from dafne_dante.federation.operator_turn import operator_folder, operator_scratch, operator_turn
from dafne_dante.federation.publishing import Publisher

__all__ = ["Adopted", "adopt_version"]


@dataclass(frozen=True)
class Adopted:
    """What was taken over: the version, the digest of its weights, and the newer versions that are known no more."""

    version: str
    weights_sha256: str
    forgotten: tuple[str, ...]


def adopt_version(depot: Depot, model_type: str, version: str, settings: Settings) -> Adopted:
    """Make the depot's newest version the one to build on, and let the kept ones before it count as bases.

    Raises:
        SettingsError: `version` is not the newest one of the depot.
        UntrustedVersionError: it cannot be read, or an older one has changed that must be read.
        TransportError, StorageError: nothing was taken over.
    """
    with operator_turn(settings.folder, model_type), operator_scratch(settings.folder, model_type) as scratch:
        known = KnownVersions(depot, scratch)
        if version != known.newest:
            raise SettingsError(f"expected the newest version, {known.newest}, found another; publish list names them")
        store = Store(operator_folder(settings.folder, model_type))
        ledger = store.load()
        known.look_up(ledger)
        ledger = Publisher(depot, model_type, settings, store).settle(ledger, known.digests)
        forgotten = tuple(sorted((one for one in ledger.versions if int(one) > int(version)), key=int))
        gone = {version, *forgotten}
        kept = replace(
            ledger,
            versions={one: digest for one, digest in ledger.versions.items() if one not in gone},
            timestamps={one: stamp for one, stamp in ledger.timestamps.items() if one not in gone},
            files={one: digest for one, digest in ledger.files.items() if one not in gone},
        )
        store.save(known.remembered(kept, known.versions))
        return Adopted(version, known.digests[version], forgotten)
