"""A site's settings -> its case store, with the key that belongs to it."""

from collections.abc import Callable
from pathlib import Path

import platformdirs

from dafne_dante.annotations.store.index import INDEX_FILE
from dafne_dante.annotations.store.key import StoreKey, ensure_store_key
from dafne_dante.annotations.store.retention import Limits
from dafne_dante.annotations.store.store import CaseStore, rebuild_index
from dafne_dante.config import Settings
from dafne_dante.errors import StorageError
from dafne_dante.keychain import Keychain, system_keychain

__all__ = ["limits_of", "open_case_store", "repair_case_store", "store_exists", "store_folder", "store_key"]

_APPLICATION = "dafne-dante"


def store_folder(settings: Settings) -> Path:
    """Where the store is: what the settings say, else the platform's place for data.

    A configuration folder that somebody chose keeps its store inside, so that two of them never share one.
    """
    if settings.annotations.store is not None:
        return settings.annotations.store
    if settings.folder == Path(platformdirs.user_config_dir(_APPLICATION)):
        return Path(platformdirs.user_data_dir(_APPLICATION)) / "cases"
    return settings.folder / "cases"


def limits_of(settings: Settings) -> Limits:
    """How much the site wants to keep."""
    wanted = settings.annotations
    most, most_prepared = (int(gib * (1 << 30)) for gib in (wanted.keep_gib, wanted.keep_prepared_gib))
    return Limits(wanted.keep_cases, wanted.keep_days, most, most_prepared)


def store_exists(settings: Settings) -> bool:
    """Whether anything was sealed there already; nothing is created."""
    try:
        return any(path.name == INDEX_FILE or path.suffix == ".case" for path in store_folder(settings).iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"cannot list the case store: {error.strerror or type(error).__name__}") from error


def store_key(
    settings: Settings, *, say: Callable[[str], None], find_keychain: Callable[[], Keychain | None] = system_keychain
) -> StoreKey:
    """The key of the site's store, made now where there is neither; `say` gets what a person should know, once.

    Raises:
        TrustError: the key is lost, others can read it, or the keyring does not have it.
        StorageError: the configuration folder is not writable, or the keyring refuses.
    """
    try:
        keychain = find_keychain()
    except StorageError:
        keychain = None  # whoever needs it is told that there is none
    key = ensure_store_key(settings.folder, keychain, store_exists=store_exists(settings))
    if key.note:
        say(key.note)
    return key


def open_case_store(
    settings: Settings, *, say: Callable[[str], None], find_keychain: Callable[[], Keychain | None] = system_keychain
) -> CaseStore:
    """The site's store, made now when there is none; raises as `store_key` and `CaseStore` do."""
    key = store_key(settings, say=say, find_keychain=find_keychain)
    return CaseStore(store_folder(settings), key, limits=limits_of(settings))


def repair_case_store(
    settings: Settings, *, say: Callable[[str], None], find_keychain: Callable[[], Keychain | None] = system_keychain
) -> CaseStore:
    """The site's store with an index that is made anew from the cases' files; raises as `rebuild_index` does."""
    key = store_key(settings, say=say, find_keychain=find_keychain)
    return rebuild_index(store_folder(settings), key, limits=limits_of(settings))
