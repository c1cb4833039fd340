"""Volumes in, one segmentation out: NIfTI-1 and NIfTI-2 in a single file, `.nii` or `.nii.gz`.

Terms: a *volume* is an array (X, Y, Z) of real numbers in the file's own voxel order; its affine (4, 4) is the
file's sform, else its qform, else its voxel sizes alone, as nibabel chooses (NIfTI-1, methods 3, 2, 1). Where both
are there and differ, that is told; where they differ in what is left and right, the file is refused.

Invariants
- The header is read and judged before anything of the size that it claims is allocated: a file of a few bytes
  cannot ask for the machine's memory, and a compressed one is never unpacked beyond the size in its header.
- A compressed file is read to its end, so that its checksum is verified: a cut or rotten file is never half a study.
- Whether a file is compressed is seen in its first bytes, not in its name.
- Every fault is an UnreadableImageError that names the file by its base name.
"""

import gzip
import logging
import math
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from dafne_dante.annotations.geometry import Shape, affine_fault, corner_distance_mm, spacing_mm
from dafne_dante.durable import write_atomically
from dafne_dante.errors import GeometryMismatchError, StorageError, UnreadableImageError
from dafne_dante.types import Affine, Segmentation, Volume

__all__ = [
    "ENDINGS",
    "MAX_BYTES",
    "MAX_VOXELS",
    "NiftiFile",
    "read_geometry",
    "read_notes",
    "read_volume",
    "read_volumes",
    "write_segmentation",
]

ENDINGS = (".nii.gz", ".nii")
MAX_BYTES = 4 << 30
"""Bytes of a file on disk."""
MAX_VOXELS = 1 << 28
"""Voxels of a file: 1,024 slices of 512 x 512."""

_MAX_EXTENSION_BYTES = 16 << 20  # between header and voxels, and again behind them
_MAX_DEFLATE_RATIO = 1032  # zlib, technical details: no stream unpacks to more than this
_BLOCK_BYTES = 1 << 20
_LONGEST_HEADER = 540
_USELESS_QFORM = "its qform is of no use; its sform counts"
_FORMS_APART = 0.5  # of the smallest voxel size; a quaternion is stored with less noise than a thousandth of it

_quiet = logging.getLogger(f"{__name__}.header")
_quiet.setLevel(logging.CRITICAL + 1)  # nibabel tells of header fields that it put right; nobody can act on that

_Answer = TypeVar("_Answer")
_Stream: TypeAlias = "IO[bytes] | gzip.GzipFile"


class _Fault(Exception):  # noqa: N818 (never leaves this module)
    """What is wrong with a file, in words without its name."""


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """What a file holds.

    Attributes:
        volumes: each (X, Y, Z) in the file's own order and dtype (a float dtype where the header scales them), native
            byte order, finite. A 2D image is one slice.
        affine: (4, 4) float64.
        notes: what a person should know of it, each a sentence.
    """

    volumes: tuple[Volume, ...]
    affine: Affine
    notes: tuple[str, ...] = ()


def read_volume(path: Path, *, max_bytes: int = MAX_BYTES, max_voxels: int = MAX_VOXELS) -> tuple[Volume, Affine]:
    """The one volume of a file and its affine, as `read_volumes` gives them."""
    found = read_volumes(path, max_bytes=max_bytes, max_voxels=max_voxels)
    return found.volumes[0], found.affine


def read_volumes(path: Path, count: int = 1, *, max_bytes: int = MAX_BYTES, max_voxels: int = MAX_VOXELS) -> NiftiFile:
    """Read a file of so many volumes, which follow each other along its fourth axis.

    Raises:
        UnreadableImageError: not a readable file, not NIfTI, truncated or damaged, larger than allowed, another
            number of volumes, complex or colour voxels, NaN or infinity, a unit other than millimetres, a useless
            affine, two affines of different handedness.
    """
    return _opened(path, max_bytes, lambda stream, available: _read(stream, available, count, max_voxels))


def read_geometry(path: Path, count: int | None = 1) -> tuple[Shape, Affine]:
    """What the header of a file says of its grid: voxels along its own axes, and the affine (4, 4).

    `count` is how many volumes it may have; None for any number.

    Raises:
        UnreadableImageError: a header that `read_volumes` would refuse; the voxels are not looked at.
    """

    def read(stream: _Stream, available: int) -> tuple[Shape, Affine]:
        header = _read_header(stream)
        shape = _volumes_of(header, count, MAX_VOXELS)
        return shape, _read_affine(header, shape)[0]

    return _opened(path, MAX_BYTES, read)


def read_notes(path: Path) -> tuple[str, ...]:
    """What a person should know of a file's header (see `NiftiFile`); UnreadableImageError as `read_geometry`."""

    def read(stream: _Stream, available: int) -> tuple[str, ...]:
        header = _read_header(stream)
        return _read_affine(header, _volumes_of(header, None, MAX_VOXELS))[1]

    return _opened(path, MAX_BYTES, read)


def _opened(path: Path, max_bytes: int, read: Callable[[_Stream, int], _Answer]) -> _Answer:
    """What `read` makes of the unpacked stream and of the most bytes that it can yield; UnreadableImageError."""
    try:
        size = _size_of_file(path, max_bytes)
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not compressed:
                return read(raw, size)
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return read(unpacked, size * _MAX_DEFLATE_RATIO)
    except _Fault as fault:
        raise UnreadableImageError(f"{path.name}: {fault}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableImageError(
            f"{path.name}: expected a whole compressed file, found it cut short or damaged; copy or export it again"
        ) from error
    except MemoryError as error:
        raise UnreadableImageError(f"{path.name}: expected it to fit into memory, found too little; crop it") from error
    except OSError as error:
        raise UnreadableImageError(f"cannot read {path.name}: {error.strerror or type(error).__name__}") from error


def write_segmentation(path: Path, segmentation: Segmentation, affine: Affine) -> None:
    """Write the segmentation (X, Y, Z) uint8 with its affine (4, 4) to `path`, whole or not at all.

    The same arguments give the same bytes: no date and no name is stored.

    Raises:
        GeometryMismatchError: not three axes of uint8.
        StorageError: a name that ends in neither .nii nor .nii.gz, or the disk refuses.
    """
    if segmentation.ndim != 3 or segmentation.dtype != np.uint8:
        raise GeometryMismatchError(
            f"expected a segmentation (X, Y, Z) uint8, found {segmentation.ndim} axes of {segmentation.dtype}"
        )
    if not path.name.endswith(ENDINGS):
        raise StorageError(f"expected a file name that ends in .nii.gz or .nii, found {path.name}; rename the output")
    image = Nifti1Image(segmentation, affine)
    image.set_qform(affine, code="aligned")  # some viewers read nothing but the qform
    image.header.set_xyzt_units(xyz="mm")
    content = image.to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    write_atomically(path, content)


def _size_of_file(path: Path, max_bytes: int) -> int:
    """Bytes on disk; a folder, a pipe or a device is no file and is never opened."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _Fault("expected a file, found a folder or a device")
    if status.st_size > max_bytes:
        raise _Fault(f"expected at most {max_bytes} bytes, found {status.st_size}")
    return status.st_size


def _read(stream: _Stream, available: int, count: int, max_voxels: int) -> NiftiFile:
    """`available` is the most bytes that the stream can ever yield."""
    header = _read_header(stream)
    shape = _volumes_of(header, count, max_voxels)
    dtype = _real_dtype(header)
    affine, notes = _read_affine(header, shape)
    offset = _data_offset(header)
    needed = math.prod(shape) * count * dtype.itemsize
    if offset + needed > available:
        raise _Fault(f"expected {needed} bytes of voxels, as the header says, found a shorter file; export it again")
    stream.seek(offset)
    stored = _read_exactly(stream, needed)
    _read_to_end(stream)
    scaled = _scaled(stored.view(dtype).reshape((*shape, count), order="F"), header)
    return NiftiFile(tuple(np.moveaxis(scaled, 3, 0)), affine, notes)


def _read_header(stream: _Stream) -> Any:
    block = stream.read(_LONGEST_HEADER)
    for kind in (Nifti1Header, Nifti2Header):
        if kind.may_contain_header(block):
            return _understood(_checked_header, kind, block)
    if not block:
        raise _Fault("expected a NIfTI file, found an empty one")
    raise _Fault("expected a NIfTI file (.nii or .nii.gz), found something else")


def _checked_header(kind: type[Nifti1Header], block: bytes) -> Any:
    """The header in the bytes, with its small faults put right; HeaderDataError for great ones."""
    header = kind(block[: kind.sizeof_hdr], check=False)
    if bytes(header["magic"].item()) != kind.single_magic:
        raise _Fault("expected a single .nii file, found the header of an .hdr and .img pair; convert it")
    header.check_fix(logger=_quiet, error_level=40)
    return header


def _volumes_of(header: Any, count: int | None, max_voxels: int) -> Shape:
    """Voxels of one of its `count` volumes; None where their number does not matter, nor what they come to."""
    shape = tuple(int(size) for size in _understood(header.get_data_shape))
    if not shape or min(shape) < 1:
        raise _Fault(f"expected three axes of at least one voxel, found {shape}")
    volumes = math.prod(shape[3:])
    if count is not None and volumes != count:
        expected = "one volume" if count == 1 else f"{count} volumes"
        raise _Fault(f"expected {expected}, found {len(shape)}D with {volumes}; split the file into volumes")
    voxels = math.prod(shape if count is not None else shape[:3])
    if voxels > max_voxels:
        raise _Fault(f"expected at most {max_voxels} voxels, found {voxels}; crop or resample the image")
    padded = (*shape, 1, 1)
    return padded[0], padded[1], padded[2]


def _real_dtype(header: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(_understood(header.get_data_dtype))
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        found = "complex" if dtype.kind == "c" else "colour or other"
        raise _Fault(f"expected one real number a voxel, found {found} voxels ({dtype}); convert the image")
    return dtype


def _read_affine(header: Any, shape: Shape) -> tuple[Affine, tuple[str, ...]]:
    """The affine, and what is to be said of it."""
    unit = _understood(header.get_xyzt_units)[0]
    if unit not in ("mm", "unknown"):
        raise _Fault(f"expected voxel sizes in millimetres, found the unit {unit}; convert the image")
    affine: Affine = np.asarray(_understood(header.get_best_affine), dtype=np.float64)
    if fault := affine_fault(affine):
        raise _Fault(f"{fault}; export the image again")
    return affine, _conflict(header, affine, shape)


def _conflict(header: Any, affine: Affine, shape: Shape) -> tuple[str, ...]:
    """What to say where the file has a qform and an sform, and they do not describe one place."""
    if not int(header["sform_code"]) or not int(header["qform_code"]):
        return ()
    try:
        other: Affine = np.asarray(_understood(header.get_qform), dtype=np.float64)
    except _Fault:  # a quaternion that is none
        return (_USELESS_QFORM,)
    if affine_fault(other):
        return (_USELESS_QFORM,)
    if np.linalg.det(affine[:3, :3]) * np.linalg.det(other[:3, :3]) < 0:
        raise _Fault(
            "expected sform and qform to agree on what is left and right, found that they do not; correct the header"
        )
    apart = corner_distance_mm(affine, other, shape)
    if apart <= _FORMS_APART * min(spacing_mm(affine)):
        return ()
    return (f"its sform and its qform are up to {apart:.1f} mm apart; the sform counts",)


def _data_offset(header: Any) -> int:
    """Where the voxels begin; 0 stands for "right behind the header" in files of some old programs."""
    offset = _understood(int, header["vox_offset"]) or header.single_vox_offset
    if not header.single_vox_offset <= offset <= _MAX_EXTENSION_BYTES:
        raise _Fault(f"expected voxels within {_MAX_EXTENSION_BYTES} bytes of the header, found an offset of {offset}")
    return int(offset)


def _understood(read: Callable[..., _Answer], *arguments: Any) -> _Answer:
    """What `read` makes of the header; every way in which nibabel objects to a header becomes one fault."""
    try:
        with np.errstate(all="ignore"):  # nonsense overflows, and what comes of it is judged
            return read(*arguments)
    except (HeaderDataError, ValueError, OverflowError, KeyError, IndexError) as error:
        raise _Fault(f"expected a sound NIfTI header, found a damaged one ({error}); export the image again") from error


def _read_exactly(stream: _Stream, length: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(length,) uint8, filled block by block, so that a stream that ends early has touched little memory."""
    buffer = np.empty(length, dtype=np.uint8)
    done = 0
    while done < length:
        block = stream.read(min(_BLOCK_BYTES, length - done))
        if not block:
            raise _Fault(f"expected {length} bytes, as the header says, found {done}; copy or export it again")
        buffer[done : done + len(block)] = np.frombuffer(block, dtype=np.uint8)
        done += len(block)
    return buffer


def _read_to_end(stream: _Stream) -> None:
    """Only at the end of a compressed stream is its checksum verified; what lies there is bounded, too."""
    for _ in range(_MAX_EXTENSION_BYTES // _BLOCK_BYTES + 1):
        if not stream.read(_BLOCK_BYTES):
            return
    raise _Fault("expected the file to end behind its voxels, found much more; export it again")


def _scaled(stored: Volume, header: Any) -> Volume:
    """The voxels as the header scales them, native byte order, finite."""
    slope, inter = _understood(header.get_slope_inter)
    volume = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if slope is not None and (slope, inter) != (1.0, 0.0):
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused below
            volume = apply_read_scaling(volume, slope, inter)
    if volume.dtype.kind == "f" and not np.isfinite(volume).all():
        raise _Fault("expected finite intensities, found NaN or infinity; export the image again")
    return volume
