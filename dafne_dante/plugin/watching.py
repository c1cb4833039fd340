"""The site's watch folders -> its case store: what is new or was corrected since the last scan.

Invariants: the memory of what was seen lies beside the cases and is sealed with the same key, so that one never says
"kept" of what the other does not have; a case is kept before it is remembered.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.store.opening import limits_of, store_folder, store_key
from dafne_dante.annotations.store.records import Added
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.annotations.watch import QUIET_S
from dafne_dante.annotations.watch_memory import WatchMemory
from dafne_dante.annotations.watch_taking import TakenNew, take_new
from dafne_dante.config import Settings
from dafne_dante.errors import SettingsError
from dafne_dante.plugin.collecting import reading_of

__all__ = ["WATCH_FILE", "KeptNew", "keep_new"]

WATCH_FILE = "watch.sqlite"


@dataclass(frozen=True)
class KeptNew:
    """What came of a scan.

    Attributes:
        scan: what was taken, waits, was left or is unchanged.
        added: what the store did, in the order of `scan.taken`.
    """

    scan: TakenNew
    added: tuple[Added, ...]


def keep_new(
    settings: Settings, *, say: Callable[[str], None], again: bool = False, quiet_s: float = QUIET_S
) -> KeptNew:
    """Scan every watch folder once and keep what is new, changed and complete.

    Args:
        settings: the site's.
        say: gets what a person should know, once: where the key of the store is.
        again: tell again why studies were refused before.
        quiet_s: how long nothing must have touched a study.

    Raises:
        SettingsError: there is no watch folder.
        StorageError: the store or the memory refuses; what was kept before stays, and is remembered.
        TrustError: the key of the store is lost or not the right one.
    """
    folders = settings.annotations.folders
    if not folders:
        raise SettingsError('expected watch folders, found none; write folders = ["..."] under [annotations]')
    key = store_key(settings, say=say)
    folder = store_folder(settings)
    store = CaseStore(folder, key, limits=limits_of(settings))
    memory = WatchMemory(folder / WATCH_FILE, key.derive("watch folders"))
    added: list[Added] = []

    def keep(case: Case) -> None:
        added.append(store.add(case))

    reading = reading_of(settings.annotations, key.case_ids)
    found = take_new(folders, memory, keep, reading=reading, quiet_s=quiet_s, again=again)
    return KeptNew(found, tuple(added))
