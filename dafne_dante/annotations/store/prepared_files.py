"""Sealed copies of kept cases as a network sees them, so that no later run has to prepare them again.

Terms
- A *file* belongs to one version of one case and one way of preparing it. It is called
  `<case_id>-<64 digits>.prepared`; the digits are an HMAC over all that the preparation depends on.
- Its *parts* (one a volume, or one a slice) are sealed each for itself, so that one is read without the others. Layout:
  the parts, one after the other; their lengths, sealed JSON; 4 bytes (big-endian) with the length of that.

Invariants
- Only what the store holds is here: a case that was removed, dropped or corrected takes its files along, also when a
  process writes one at that very moment, or dies (see `PreparedFiles.write` and `keep_only`).
- Nothing but pseudonyms, digits that tell nothing without the key, and sizes is in clear. A file is authenticated
  together with its name; whatever is not as it was sealed counts as absent and is written anew.
- All files together stay within the limit; the least recently used go first, but none that this run has used.
"""

import hmac
import io
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.store.key import StoreKey
from dafne_dante.annotations.store.sealing import CHUNK_BYTES, seal, seal_blob, sealed_bytes, unseal, unseal_blob
from dafne_dante.durable import make_folder, write_stream_atomically
from dafne_dante.errors import StorageError

__all__ = ["PreparedFiles"]

_FILE = re.compile(r"([0-9a-f]{16})-[0-9a-f]{64}\.prepared")
_PART = re.compile(r"\.[^/\\]*\.part")
_LENGTH_BYTES = 4
_MAX_LENGTHS_BYTES = 16 << 20
_ABANDONED_S = 3600.0
"""An unfinished file that nobody wrote to for so long is left over from a process that died."""


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    used_ns: int


class PreparedFiles:
    """The files in a folder, which is made with the first of them.

    Args:
        holds: whether the store holds the case now.
        max_bytes: of all files together; 0 for none at all.
    """

    def __init__(self, folder: Path, key: StoreKey, holds: Callable[[str], bool], max_bytes: int) -> None:
        self._folder, self._holds, self._max_bytes = folder, holds, max_bytes
        self._key, self._names = key.derive("prepared cases"), key.derive("prepared names")
        self._used: set[str] = set()

    def name_for(self, case: Case, how: str) -> str:
        """The file for a case that is prepared as `how` says; empty when the store does not hold the case."""
        if not self._max_bytes or not self._holds(case.case_id):
            return ""
        return f"{case.case_id}-{_digest(case, how, self._names)}.prepared"

    def has(self, name: str) -> bool:
        """Whether there is such a file, sound or not."""
        try:
            return bool(_FILE.fullmatch(name)) and (self._folder / name).is_file()
        except OSError:  # looking is forbidden
            return False

    def read(self, name: str, part: int) -> bytearray:
        """One part of a file; StorageError when it is not there, or not as it was sealed."""
        with self._opened(name) as stream:
            content = self._read_part(stream, name, part)
        self._used.add(name)
        with suppress(OSError):  # a folder that may be read only still serves
            os.utime(self._folder / name)
        return content

    def write(self, name: str, parts: Sequence[Sequence[memoryview]]) -> bool:
        """Seal the parts, each in pieces of bytes, in place of a file that is there; whether they are kept.

        They are not when they go beyond the limit, or the case has left the store meanwhile. That is looked up after
        the file is there: whoever removes a case deletes its files after that, so one of both finds the file.

        Raises:
            StorageError: the disk refuses.
        """
        size = sum(sealed_bytes(sum(len(piece) for piece in part)) for part in parts)
        if not _FILE.fullmatch(name) or not self._make_room(size, name):
            return False
        self._make_folder()
        write_stream_atomically(self._folder / name, lambda stream: self._fill(stream, name, parts), mode=0o600)
        if self._holds(name.partition("-")[0]):
            self._used.add(name)
            return True
        self._delete(name)
        return False

    def keep_only(self, case_ids: Collection[str]) -> None:
        """Delete the files of all other cases, what a dead process left, and what is beyond the limit.

        Raises:
            StorageError: the disk refuses.
        """
        for name in self._listing():
            found = _FILE.fullmatch(name)
            if (found and found.group(1) not in case_ids) or (_PART.fullmatch(name) and self._is_abandoned(name)):
                self._delete(name)
        self._shrink_to(self._max_bytes, self._files())

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        """The file; what the disk says against it becomes a StorageError."""
        if not self.has(name):
            raise StorageError(f"expected {name}, found no such file")
        try:
            with (self._folder / name).open("rb") as stream:
                yield stream
        except OSError as error:
            raise StorageError(f"cannot read {name}: {error.strerror or type(error).__name__}") from error

    def _read_part(self, stream: IO[bytes], name: str, part: int) -> bytearray:
        lengths = self._lengths(stream, name)
        if not 0 <= part < len(lengths):
            raise _damaged(name)
        stream.seek(sum(map(sealed_bytes, lengths[:part])))
        sealed = io.BytesIO(stream.read(sealed_bytes(lengths[part])))
        content = bytearray()
        for chunk in unseal(self._key, f"{name}/{part}".encode(), sealed, name):
            content += chunk
        if len(content) != lengths[part]:
            raise _damaged(name)
        return content

    def _lengths(self, stream: IO[bytes], name: str) -> list[int]:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size - _LENGTH_BYTES))
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "big")
        if not 0 < length <= min(size - _LENGTH_BYTES, _MAX_LENGTHS_BYTES):
            raise _damaged(name)
        stream.seek(size - _LENGTH_BYTES - length)
        lengths = _whole_numbers(unseal_blob(self._key, name.encode(), stream.read(length), name), name)
        if sum(map(sealed_bytes, lengths)) != size - _LENGTH_BYTES - length:
            raise _damaged(name)
        return lengths

    def _fill(self, stream: IO[bytes], name: str, parts: Sequence[Sequence[memoryview]]) -> None:
        for number, part in enumerate(parts):
            seal(self._key, f"{name}/{number}".encode(), _chunks(part), stream.write)
        lengths = json.dumps([sum(len(piece) for piece in part) for part in parts]).encode()
        blob = seal_blob(self._key, name.encode(), lengths)
        stream.write(blob + len(blob).to_bytes(_LENGTH_BYTES, "big"))

    def _make_room(self, size: int, name: str) -> bool:
        """Delete what was not used here, least recently used first; whether `size` fits in now."""
        others = [file for file in self._files() if file.name != name]
        left = self._max_bytes - size - sum(file.size for file in others if file.name in self._used)
        if left < 0:
            return False
        self._shrink_to(left, [file for file in others if file.name not in self._used])
        return True

    def _shrink_to(self, most_bytes: int, files: Sequence[_File]) -> None:
        total = sum(file.size for file in files)
        for file in sorted(files, key=lambda file: (file.used_ns, file.name)):
            if total <= most_bytes:
                return
            self._delete(file.name)
            total -= file.size

    def _files(self) -> list[_File]:
        found = []
        for name in self._listing():
            if _FILE.fullmatch(name):
                with suppress(FileNotFoundError):  # another process was quicker
                    status = (self._folder / name).stat()
                    found.append(_File(name, status.st_size, status.st_mtime_ns))
        return found

    def _listing(self) -> list[str]:
        try:
            return sorted(path.name for path in self._folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot list the prepared cases: {error.strerror or type(error).__name__}") from error

    def _is_abandoned(self, name: str) -> bool:
        try:
            return time.time() - (self._folder / name).stat().st_mtime > _ABANDONED_S
        except FileNotFoundError:
            return False

    def _delete(self, name: str) -> None:
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot delete a prepared case: {error.strerror or type(error).__name__}") from error

    def _make_folder(self) -> None:
        if not self._folder.exists():
            make_folder(self._folder)
            with suppress(OSError):  # file systems without permissions; what lies inside is sealed anyway
                self._folder.chmod(0o700)


def _digest(case: Case, how: str, key: bytes) -> str:
    """64 hexadecimal digits of what the case holds and how it is prepared; its id is not part of it."""
    affine = [float(value) for value in case.affine.reshape(-1)]
    facts = json.dumps([how, case.labels, case.image.shape, case.annotated.tolist(), affine])
    digest = hmac.new(key, f"{len(facts)} {facts}".encode(), "sha256")
    digest.update(np.ascontiguousarray(case.segmentation).data)
    digest.update(np.ascontiguousarray(case.image, dtype="<f4").data)
    return digest.hexdigest()


def _whole_numbers(content: bytes, name: str) -> list[int]:
    try:
        return [int(number) for number in json.loads(content)]
    except (ValueError, TypeError) as error:
        raise _damaged(name) from error


def _chunks(pieces: Sequence[memoryview]) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), CHUNK_BYTES):
            yield bytes(piece[start : start + CHUNK_BYTES])


def _damaged(name: str) -> StorageError:
    return StorageError(f"expected {name} as it was sealed, found it damaged")
