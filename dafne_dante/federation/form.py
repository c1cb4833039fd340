"""A multipart form with one file, read from the disk while it is sent.

Invariants: memory does not grow with the file; what was read of the form tells what the server can have got: a form
that was not read to its end lacks its closing boundary, so no server has taken its file.
"""

import io
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import urllib3

from dafne_dante.errors import ServerUnreachableError, StorageError, TransportError

__all__ = ["FilePart", "UploadForm"]


@dataclass(frozen=True)
class FilePart:
    """`length` bytes of a file from byte `offset` on."""

    path: Path
    offset: int
    length: int

    @classmethod
    def whole(cls, path: Path) -> "FilePart":
        """All of a file; StorageError when there is none."""
        try:
            return cls(path, 0, path.stat().st_size)
        except OSError as error:
            raise _unreadable(path, error) from error


class UploadForm(io.RawIOBase):
    """The body of a POST: `fields`, then `part` as the file `model_binary` under `name`; a stream of known length.

    `slowest_bytes_per_s` beyond the first `timeout_s` seconds: a server that takes less is given up. What goes wrong
    while it is read is kept in `failure`, since the HTTP library wraps whatever it meets.

    Raises:
        StorageError: the file cannot be opened.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        name: str,
        part: FilePart,
        *,
        timeout_s: float = 60.0,
        slowest_bytes_per_s: float = 1024.0,
    ) -> None:
        super().__init__()
        body, self.content_type = urllib3.encode_multipart_formdata(
            {**fields, "model_binary": (name, b"", "application/octet-stream")}
        )
        end = b"\r\n--" + self.content_type.rpartition("boundary=")[2].encode() + b"--\r\n"
        self._part, self._position, self._furthest, self._begin = part, 0, 0, time.monotonic()
        self._head, self._tail = body[: -len(end)], end
        self._timeout_s, self._slowest_bytes_per_s = timeout_s, slowest_bytes_per_s
        self.failure: StorageError | TransportError | None = None
        try:
            self._file: IO[bytes] = part.path.open("rb")
            self._file.seek(part.offset)
        except OSError as error:
            raise _unreadable(part.path, error) from error

    def __len__(self) -> int:
        return len(self._head) + self._part.length + len(self._tail)

    @property
    def exhausted(self) -> bool:
        """Whether the last byte was read."""
        return self._furthest == len(self)

    def readable(self) -> bool:
        """True: it is a stream to read."""
        return True

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def seekable(self) -> bool:
        """True; the HTTP library goes back to the begin when it meets a redirect, also one that is not followed."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to byte `offset` from the begin (as with any stream, also from here or the end); return where that is."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self)}[whence]
        self._position = max(0, start + offset)
        within = min(max(0, self._position - len(self._head)), self._part.length)
        self._file.seek(self._part.offset + within)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the next seam between head, file and tail."""
        if time.monotonic() - self._begin > self._timeout_s + self._position / self._slowest_bytes_per_s:
            self.failure = ServerUnreachableError(
                "the server takes too slowly; try again later", may_have_arrived=False
            )
            raise OSError("too slow")
        block = self._next_block(len(buffer))
        buffer[: len(block)] = block
        self._position += len(block)
        self._furthest = max(self._furthest, self._position)
        return len(block)

    def close(self) -> None:
        """Close the file, too."""
        if hasattr(self, "_file"):  # absent when it could not be opened
            self._file.close()
        super().close()

    def _next_block(self, most: int) -> bytes:
        at = self._position
        if at < len(self._head):
            return self._head[at : at + most]
        left = len(self._head) + self._part.length - at
        if left > 0:
            return self._file_block(min(most, left))
        return self._tail[-left : -left + most]

    def _file_block(self, count: int) -> bytes:
        try:
            block = self._file.read(count)
        except OSError as error:
            self.failure = _unreadable(self._part.path, error)
            raise
        if not block:
            self.failure = StorageError(f"expected {self._part.path.name} to stay as it is, found that it was cut")
            raise OSError(os.strerror(5))
        return block


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot read {path.name}: {error.strerror or type(error).__name__}")
