"""The arrays of an `.npz` file, one at a time; nothing that it claims is believed.

Terms: an `.npz` is a zip; each *member* `<name>.npy` is one array: a header of text (dtype, order, shape) and the
numbers behind it (NumPy, NEP 1). Members with other endings are no arrays and do not exist for us.

Invariants
- Nothing is unpacked to disk, and no member is opened that nobody asked for. A name is only ever looked up, never
  used as a path; a file with names that leave their folder, or with one name twice, is refused as a whole: two
  readers would disagree on what is in it.
- The table is bounded before it is parsed, the sizes in it before anything is unpacked, and an array's header before
  anything of its size is allocated: header and table must agree to the byte, and deflate can yield that much.
- Objects, texts, dates, complex numbers and records are refused by their dtype, so nothing is ever unpickled.
- The checksum of every array is verified: reading goes to its end.
"""

import io
import math
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from dafne_dante.annotations.dafne.masks import is_real
from dafne_dante.annotations.nifti.volume import MAX_BYTES, MAX_VOXELS
from dafne_dante.errors import UnreadableImageError
from dafne_dante.types import Volume

__all__ = ["ENDING", "MAX_MEMBERS", "MAX_UNPACKED_BYTES", "Npz", "open_npz"]

ENDING = ".npz"
MAX_MEMBERS = 1_000
MAX_UNPACKED_BYTES = 16 << 30
"""All members together: 300 uint8 masks of 200 slices of 512 x 512."""

_ARRAY = ".npy"
_BLOCK_BYTES = 1 << 20
_MAX_HEADER_BYTES = 10_000  # what NumPy itself accepts
_MAX_DEFLATE_RATIO = 1032  # zlib, technical details: no stream unpacks to more than this
_ENCRYPTED = 0x1
_FOREIGN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""Ways in which zipfile and NumPy object to a damaged file."""


class _Fault(Exception):  # noqa: N818 (never leaves this module)
    """What is wrong with a file, in words without its name."""


class _BoundedFile(io.FileIO):
    """A file that never yields more than a block at once, so that zipfile cannot read a table without end."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most a block; _Fault when more is asked for."""
        content = super().read(_BLOCK_BYTES + 1 if size is None or size < 0 else min(size, _BLOCK_BYTES + 1)) or b""
        if len(content) > _BLOCK_BYTES:
            raise _Fault(f"expected at most {MAX_MEMBERS} arrays, found a table without end; save it again")
        return content


class Npz:
    """The arrays of an open file; `open_npz` makes it.

    Attributes:
        name: base name of the file, for messages.
        names: of its arrays, in the order of the file.
    """

    def __init__(self, name: str, archive: zipfile.ZipFile) -> None:
        members = archive.infolist()
        _check_table(members)
        self.name = name
        self._archive = archive
        self._members: Mapping[str, zipfile.ZipInfo] = MappingProxyType(
            {member.filename.removesuffix(_ARRAY): member for member in members if member.filename.endswith(_ARRAY)}
        )
        self.names = tuple(self._members)

    def read(self, name: str) -> Volume:
        """The array of this name, in native byte order, any number of axes; UnreadableImageError when it has none."""
        with _told_of(self.name):
            if name not in self._members:
                raise _Fault(f"expected an array {name}, found none; save it again")
            with _told_within(name), self._archive.open(self._members[name]) as stream:
                return _read_array(stream, self._members[name])


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """The arrays of the file while it is open.

    Raises:
        UnreadableImageError: not a readable file, not a zip, damaged, or beyond a limit; here or while reading.
    """
    with ExitStack() as opened:
        with _told_of(path.name):
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise _Fault("expected a file, found a folder or a device")
            if status.st_size > MAX_BYTES:
                raise _Fault(f"expected at most {MAX_BYTES} bytes, found {status.st_size}")
            raw = opened.enter_context(_BoundedFile(path))
            arrays = Npz(path.name, opened.enter_context(zipfile.ZipFile(raw)))
        yield arrays


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    """Every fault of the file as an error that names it."""
    try:
        yield
    except _Fault as fault:
        raise UnreadableImageError(f"{name}: {fault}") from None
    except MemoryError as error:
        raise UnreadableImageError(f"{name}: expected it to fit into memory, found too little; crop it") from error
    except OSError as error:
        raise UnreadableImageError(f"cannot read {name}: {error.strerror or type(error).__name__}") from error
    except _FOREIGN as error:
        raise UnreadableImageError(
            f"{name}: expected a whole .npz file, found it cut short or damaged; copy or save it again"
        ) from error


@contextmanager
def _told_within(name: str) -> Iterator[None]:
    """A fault with the name of the array."""
    try:
        yield
    except _Fault as fault:
        raise _Fault(f"{name}: {fault}") from None


def _check_table(members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS:
        raise _Fault(f"expected at most {MAX_MEMBERS} arrays, found {len(members)}")
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise _Fault("expected every array once, found one name twice; save it again")
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise _Fault("expected names of arrays, found a path that leads elsewhere; save it again")
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_UNPACKED_BYTES:
        raise _Fault(f"expected at most {MAX_UNPACKED_BYTES} bytes when unpacked, found {unpacked}; crop the image")


def _read_array(stream: IO[bytes], member: zipfile.ZipInfo) -> Volume:
    if member.flag_bits & _ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Fault("expected a plain or deflated array, found another; save it again")
    dtype, in_columns, shape, length = _read_header(stream)
    size = math.prod(shape) * dtype.itemsize
    if length + size != member.file_size or member.file_size > max(member.compress_size, 1) * _MAX_DEFLATE_RATIO:
        raise _Fault(f"expected {size} bytes, as its header says, found another number; save it again")
    stored = _read_exactly(stream, size).view(dtype).reshape(shape, order="F" if in_columns else "C")
    return stored.astype(dtype.newbyteorder("="), copy=False)


def _read_header(stream: IO[bytes]) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """Dtype, whether it is in Fortran order, shape, and the bytes that all this took."""
    start = stream.read(npy.MAGIC_LEN)
    version = npy.read_magic(io.BytesIO(start))
    if version not in ((1, 0), (2, 0)):
        raise _Fault("expected an array of real numbers, found another; save it again")
    size = stream.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(size, "little")
    if length > _MAX_HEADER_BYTES:
        raise _Fault(f"expected a header of at most {_MAX_HEADER_BYTES} bytes, found {length}")
    header = io.BytesIO(size + stream.read(length))
    shape, in_columns, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(header)
    if not is_real(dtype):
        raise _Fault("expected an array of real numbers, found another; save it again")
    if any(size < 0 for size in shape) or math.prod(shape) > MAX_VOXELS:
        raise _Fault(f"expected at most {MAX_VOXELS} voxels, found {shape}; crop or resample the image")
    return dtype, in_columns, shape, len(start) + len(header.getvalue())


def _read_exactly(stream: IO[bytes], length: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(length,) uint8, filled block by block, so that a stream that ends early has touched little memory."""
    buffer = np.empty(length, dtype=np.uint8)
    done = 0
    while done < length:
        block = stream.read(min(_BLOCK_BYTES, length - done))
        if not block:
            raise _Fault(f"expected {length} bytes, found {done}; copy or save it again")
        buffer[done : done + len(block)] = np.frombuffer(block, dtype=np.uint8)
        done += len(block)
    return buffer
