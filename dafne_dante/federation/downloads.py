"""Global models that were downloaded, kept so that none is downloaded twice; bounded in number and bytes.

Invariants
- A file is named by its SHA-256, and what is taken out has that digest: it is computed anew from the bytes that are
  handed over. A kept file that was changed is dropped and fetched again.
- After every fetch the folder holds at most `most_files` of at most `most_bytes` in all, and what is there was used
  last. A file that is larger than that is handed over and not kept.
- Files appear whole or not at all, and a file that another process removes meanwhile is one that is not there: any
  number of processes may share a folder.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dafne_dante.durable import make_folder, write_stream_atomically
from dafne_dante.errors import StorageError

__all__ = ["ModelCache"]

_BLOCK_BYTES = 1 << 20
_ABANDONED_S = 86_400.0
_NAME = re.compile(r"[0-9a-f]{64}\.model")


class _OtherBytesError(Exception):
    """The kept file is not what its name says."""


@dataclass(frozen=True)
class ModelCache:
    """At most `most_files` files of at most `most_bytes` bytes in all, in `folder`; 0 of either keeps nothing."""

    folder: Path
    most_files: int = 10
    most_bytes: int = 5 * 1024**3

    def take(self, sha256: str, destination: Path, fetch: Callable[[Path], object]) -> Path:
        """Write the file with this digest to `destination`: the kept one, else what `fetch` writes to a path.

        `fetch` is to write a file with that digest or to raise, as Transport.download does.

        Raises:
            StorageError: the disk refuses. And whatever `fetch` raises.
        """
        kept = make_folder(self.folder) / f"{sha256}.model"
        if self._copied(kept, destination, sha256):
            return destination
        fetch(destination)
        self._keep(destination, kept)
        return destination

    def _copied(self, kept: Path, destination: Path, sha256: str) -> bool:
        try:
            with kept.open("rb") as source:
                write_stream_atomically(destination, lambda target: _copy(source, target, sha256))
        except FileNotFoundError:
            return False
        except _OtherBytesError:
            _remove(kept)
            return False
        except OSError as error:
            raise StorageError(f"cannot read {kept.name}: {error.strerror or type(error).__name__}") from error
        with suppress(OSError):  # to be used is no more than a hint for what goes first
            os.utime(kept)
        return True

    def _keep(self, fetched: Path, kept: Path) -> None:
        try:
            with fetched.open("rb") as source:
                if self.most_files > 0 and os.fstat(source.fileno()).st_size <= self.most_bytes:
                    write_stream_atomically(kept, lambda target: shutil.copyfileobj(source, target, _BLOCK_BYTES))
            self._drop_beyond_bounds()
        except OSError as error:
            raise StorageError(f"cannot keep {kept.name}: {error.strerror or type(error).__name__}") from error

    def _drop_beyond_bounds(self) -> None:
        """Remove what was used longest ago until the bounds hold, and what a killed process left half written."""
        files, left = [], self.most_bytes
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                state = path.stat()
                if _NAME.fullmatch(path.name):
                    files.append((state.st_mtime, path.name, state.st_size))
                elif path.suffix == ".part" and time.time() - state.st_mtime > _ABANDONED_S:
                    _remove(path)
        for place, (_, name, size) in enumerate(sorted(files, reverse=True)):
            left -= size
            if place >= self.most_files or left < 0:
                _remove(self.folder / name)


def _copy(source: IO[bytes], target: IO[bytes], sha256: str) -> None:
    digest = hashlib.sha256()
    while block := source.read(_BLOCK_BYTES):
        digest.update(block)
        target.write(block)
    if digest.hexdigest() != sha256:
        raise _OtherBytesError


def _remove(path: Path) -> None:
    # Gone already, or (on Windows) open in another process, which then is what uses it.
    with suppress(FileNotFoundError, PermissionError):
        path.unlink()
