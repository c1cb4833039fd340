"""The improved models of one type on this site's disk, and which of them Dafne uses.

Terms: `<SHA-256>.model` and `<SHA-256>.delta` hold the content of that digest; `state.json` says which are versions.

Invariants
- Files are written before the state that names them and removed after the state that does not, so that a kill at any
  point leaves the old state or the new one, and every file that it names.
- A file is checked against its digest before it is handed out.
- One process at a time changes a type; at most `KEEP` versions beside the newest are kept.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from dafne_dante.config import Settings
from dafne_dante.durable import digest_file, make_folder, read_bounded, write_atomically
from dafne_dante.errors import DamagedModelError, SettingsError, StorageError
from dafne_dante.plugin.local.versions import LocalState, LocalVersion, parse_state, serialise_state

__all__ = ["KEEP", "LocalShelf", "local_folder", "local_shelf", "local_types"]

KEEP = 5
_STATE = "state.json"
_MAX_STATE_BYTES = 1 << 20
_MAX_BYTES = 2 << 30
_WAIT_S = 60.0
_APPLICATION = "dafne-dante"


class LocalShelf:
    """One type's folder, made with the first version."""

    def __init__(self, folder: Path, model_type: str) -> None:
        self._folder, self._type = folder, model_type

    def state(self) -> LocalState:
        """What is kept; StorageError where it is damaged or cannot be read."""
        path = self._folder / _STATE
        if not path.exists():
            return LocalState(self._type)
        state = parse_state(read_bounded(path, max_bytes=_MAX_STATE_BYTES))
        if state.model_type != self._type:
            raise StorageError("expected the improved models of this type, found another's; forget them")
        return state

    def model_path(self, version: LocalVersion) -> Path:
        """The file of a version, its digest checked; DamagedModelError where it is another, StorageError for none."""
        path = self._folder / f"{version.model}.model"
        if digest_file(path) != version.model:
            raise DamagedModelError(
                f"expected the improved model {version.number} as it was kept, found other bytes; use another version"
            )
        return path

    def delta(self, sha256: str) -> bytes:
        """A delta's bytes; StorageError where they are not there or others."""
        content = read_bounded(self._folder / f"{sha256}.delta", max_bytes=_MAX_BYTES)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StorageError("expected a delta as it was kept, found other bytes; improve the model again")
        return content

    def add(self, version: Callable[[LocalState], LocalVersion], model: bytes, *deltas: bytes, seen: str) -> LocalState:
        """Keep what `version` makes of the state so far, and choose it.

        Args:
            model: the file's bytes; its digest is that of the version.
            deltas: those that are not there yet.
            seen: the newest global version.

        Raises:
            StorageError: the disk refuses; the state is the old or the new one, whole.
        """
        with self.changing():
            make_folder(self._folder)
            before = self.state()
            added = version(before)
            known = before.find(added.number)
            if known is not None and known.model == added.model:  # kept before, and the end of it was lost
                with _disk():
                    self._sweep(before)
                return before
            for content, ending in ((model, "model"), *((one, "delta") for one in deltas)):
                write_atomically(self._folder / f"{hashlib.sha256(content).hexdigest()}.{ending}", content)
            return self._settle(replace(before.with_version(added, keep=KEEP), seen=seen))

    def choose(self, number: int, status: str, *, seen: str | None = None) -> LocalState:
        """Let Dafne use a version, or the global model (0); SettingsError where there is none of that number."""
        with self.changing():
            state = self.state()
            if number and state.find(number) is None:
                known = ", ".join(str(one.number) for one in state.versions) or "none"
                raise SettingsError(f"expected one of the versions {known}, found {number}; see dafne-dante local list")
            if not self._folder.exists():
                return state
            chosen = replace(state, chosen=number, status=status, seen=state.seen if seen is None else seen)
            return self._settle(chosen)

    def forget(self) -> bool:
        """Remove all versions of the type; whether there was anything."""
        with self.changing():
            there = (self._folder / _STATE).exists()
            with _disk():
                (self._folder / _STATE).unlink(missing_ok=True)
                self._sweep(LocalState(self._type))
                with suppress(OSError):  # not empty, or not there
                    self._folder.rmdir()
        return there

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else changes the type within the block; StorageError when another process takes a minute."""
        make_folder(self._folder.parent)
        try:
            with FileLock(f"{self._folder}.lock", timeout=_WAIT_S, thread_local=True):
                yield
        except Timeout as error:
            raise StorageError("expected nobody else to change the improved models, found another process") from error
        except OSError as error:
            raise StorageError(
                f"cannot change the improved models: {error.strerror or type(error).__name__}"
            ) from error

    def _settle(self, state: LocalState) -> LocalState:
        write_atomically(self._folder / _STATE, serialise_state(state))
        with _disk():
            self._sweep(state)
        return state

    def _sweep(self, state: LocalState) -> None:
        """Remove what no version names, and what a killed process was writing."""
        names = {_STATE, *(f"{one.model}.model" for one in state.versions)}
        names |= {f"{sha256}.delta" for one in state.versions for sha256, _ in one.deltas}
        for path in self._folder.glob("*") if self._folder.exists() else ():
            if path.name not in names and path.suffix in (".model", ".delta", ".part"):
                path.unlink(missing_ok=True)


def local_folder(settings: Settings) -> Path:
    """Where they are: the platform's place for data; inside a configuration folder that somebody chose."""
    own = settings.folder == Path(platformdirs.user_config_dir(_APPLICATION))
    return (Path(platformdirs.user_data_dir(_APPLICATION)) if own else settings.folder) / "local-models"


def local_shelf(settings: Settings, model_type: str) -> LocalShelf:
    """The shelf of a type, whose name never is a path."""
    name = hashlib.sha256(model_type.encode("utf-8", "replace")).hexdigest()[:32]
    return LocalShelf(local_folder(settings) / name, model_type)


def local_types(settings: Settings) -> list[str]:
    """The types of which there are improved models, by name; damaged ones are left out."""
    found = []
    for path in sorted(local_folder(settings).glob(f"*/{_STATE}")):
        with suppress(StorageError):
            found.append(parse_state(read_bounded(path, max_bytes=_MAX_STATE_BYTES)).model_type)
    return sorted(found)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot tidy the improved models: {error.strerror or type(error).__name__}") from error
