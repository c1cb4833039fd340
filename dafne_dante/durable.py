"""Files that are whole or absent: written to a temporary neighbour, flushed to the disk, then renamed.

Invariants: a reader never sees half a file; a failed write leaves the old file as it was and no temporary behind;
every failure of the disk becomes a StorageError that names the file by its base name only.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dafne_dante.errors import StorageError

__all__ = ["digest_file", "make_folder", "move_file", "read_bounded", "write_atomically", "write_stream_atomically"]

_BLOCK_BYTES = 1 << 20


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write `content` to `path` so that the file is whole or unchanged; StorageError where the disk refuses."""
    write_stream_atomically(path, lambda stream: stream.write(content), mode=mode)


def write_stream_atomically(path: Path, fill: Callable[[IO[bytes]], object], *, mode: int = 0o644) -> None:
    """Let `fill` write into a temporary file beside `path`, flush it to the disk and rename it to `path`.

    Raises:
        StorageError: the folder is missing or not writable, or the disk is full. `path` is then as it was.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        with os.fdopen(descriptor, "wb") as stream:
            fill(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
        temporary = None
        _flush_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write {path.name}: {error.strerror or type(error).__name__}; free space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def move_file(source: Path, target: Path) -> None:
    """Rename a complete, flushed file to `target` on the same disk, durably; StorageError where the disk refuses."""
    try:
        os.replace(source, target)
        _flush_folder(target.parent)
    except OSError as error:
        raise StorageError(f"cannot keep {target.name}: {error.strerror or type(error).__name__}") from error


def make_folder(path: Path) -> Path:
    """Create the folder `path` with its parents and return it; StorageError where that is refused."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot create the folder {path.name}: {error.strerror or type(error).__name__}; choose another folder"
        ) from error
    return path


def read_bounded(path: Path, *, max_bytes: int) -> bytes:
    """Return the file's bytes; StorageError when it is missing, unreadable or longer than `max_bytes`."""
    try:
        with path.open("rb") as stream:
            # As much memory is taken as is asked for, whether it is there or not.
            size = os.fstat(stream.fileno()).st_size
            content = stream.read(min(size, max_bytes) + 1)
            if size < len(content) <= max_bytes:  # it grew, or is no common file
                content += stream.read(max_bytes + 1 - len(content))
    except OSError as error:
        raise StorageError(f"cannot read {path.name}: {error.strerror or type(error).__name__}") from error
    if len(content) > max_bytes:
        raise StorageError(f"expected {path.name} to have at most {max_bytes} bytes, found more")
    return content


def digest_file(path: Path) -> str:
    """SHA-256 of the file as 64 lower-case hexadecimal digits; StorageError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise StorageError(f"cannot read {path.name}: {error.strerror or type(error).__name__}") from error
    return digest.hexdigest()


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
