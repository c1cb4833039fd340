"""One operator at a time for a model type on this machine.

Terms: the *scratch* is where an operator's deed opens and sets aside what it works on, sealed updates among it.

Invariants: the lock goes with the process that holds it, however that ends; nobody waits for it; a process that holds
it may take it again. The scratch lies in the operator's own folder, for its owner only; what a killed process has left
in it is gone before the next deed begins.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dafne_dante.durable import make_folder
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.federation.shelf import Shelf

__all__ = ["operator_folder", "operator_scratch", "operator_turn"]


def operator_folder(folder: Path, model_type: str) -> Path:
    """Where an operator keeps the ledger of a type; SettingsError for what is no type's name."""
    if not Shelf.is_type_name(model_type):
        raise SettingsError("expected a type's name of letters, digits, spaces, hyphens and (); check --type")
    return folder / "operator" / model_type


@contextmanager
def operator_turn(folder: Path, model_type: str) -> Iterator[None]:
    """Hold the lock of a type below the configuration folder.

    Raises:
        StorageError: another operator is at work, or the disk refuses.
        SettingsError: a malformed type's name.
    """
    place = make_folder(operator_folder(folder, model_type))
    lock = FileLock(place.resolve() / "lock", timeout=0, thread_local=False, mode=0o600, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise StorageError(
            f"expected nobody else at work on {model_type} here, found another operator (merge --watch?); "
            "stop it, or wait until it is done"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot lock the operator's folder: {error.strerror or type(error).__name__}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def operator_scratch(folder: Path, model_type: str) -> Iterator[Path]:
    """An empty folder to work in, removed afterwards; only while `operator_turn` is held.

    Raises:
        StorageError: what was left there cannot be removed, or the disk refuses.
    """
    place = operator_folder(folder, model_type) / "scratch"
    try:
        _remove(place)
        place.mkdir(mode=0o700)
    except OSError as error:
        raise StorageError(f"cannot empty the folder scratch: {error.strerror or type(error).__name__}") from error
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _remove(place: Path) -> None:
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
