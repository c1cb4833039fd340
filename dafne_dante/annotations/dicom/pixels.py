"""The stored numbers of slices, read as directly as they lie in the file.

Invariants
- Plain little-endian pixels, which is nearly all that an archive holds, are read from where the header says that they
  begin; everything else goes through pydicom's decoders.
- Nothing is allocated by what a header claims: plain pixels must be there, and a compressed frame must say itself
  that it has the size that the header gives (JPEG: ITU-T T.81, B.2.2; JPEG-LS: T.87, C.2.2; JPEG 2000: T.800, A.5.1).
- Bits above BitsStored may hold anything (PS3.5, 8.1.1); they are cleared, or hold the sign.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dafne_dante.annotations.dicom.elements import DicomFault, has_element, read_object, text, understood, whole_number
from dafne_dante.annotations.dicom.files import DicomFile
from dafne_dante.errors import StorageError
from dafne_dante.types import Volume

__all__ = ["stored_frames"]

_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_UNCOMPRESSED = (*_PLAIN, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_UNDEFINED = 0xFFFFFFFF
_MAX_FILE_BYTES = 2 << 30
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_JPEG_2000 = b"\xff\x4f\xff\x51"


def stored_frames(file: DicomFile, frames: Sequence[int]) -> Iterator[Volume]:
    """The stored numbers (rows, columns) of some frames of a file, in the order asked for.

    Raises:
        DicomFault: pixels that are missing, cut short, of another size, or in a form that no decoder reads.
        StorageError: the file cannot be read.
    """
    plain = file.syntax in _PLAIN and file.pixels_at > 0
    for frame in _read_plain(file, frames) if plain else _read_decoded(file, frames):
        yield _without_unused_bits(file.header, frame)


def _shape(header: Dataset) -> tuple[int, int]:
    return whole_number(header, "Rows", 1, 65_535), whole_number(header, "Columns", 1, 65_535)


def _read_plain(file: DicomFile, frames: Sequence[int]) -> Iterator[Volume]:
    rows, columns = _shape(file.header)
    dtype = _stored_dtype(file.header)
    length = rows * columns * dtype.itemsize
    try:
        with file.path.open("rb") as stream:
            start, available = _pixels_in(stream, file)
            for frame in frames:
                if (frame + 1) * length > available:
                    raise DicomFault(f"expected {length} bytes of pixels a slice, found fewer; copy or export it again")
                stream.seek(start + frame * length)
                content = stream.read(length)
                if len(content) < length:
                    raise DicomFault("expected all pixels, found a file that is cut short; copy or export it again")
                yield np.frombuffer(content, dtype).reshape(rows, columns)
    except OSError as error:
        raise StorageError(f"cannot read {file.path.name}: {error.strerror or type(error).__name__}") from error


def _pixels_in(stream: IO[bytes], file: DicomFile) -> tuple[int, int]:
    """Where the pixels begin, and how many bytes the element says that they have (PS3.5, 7.1)."""
    stream.seek(file.pixels_at)
    head = stream.read(12)
    short = file.syntax == ImplicitVRLittleEndian
    length = int.from_bytes(head[4:8] if short else head[8:12], "little")
    if head[:4] != _PIXEL_DATA or len(head) < 12 or length == _UNDEFINED:
        raise DicomFault("expected plain pixels behind the header, found something else; export it again")
    return file.pixels_at + (8 if short else 12), length


def _stored_dtype(header: Dataset) -> "np.dtype[np.generic]":
    bits = whole_number(header, "BitsAllocated", 1, 64)
    signed = has_element(header, "PixelRepresentation") and whole_number(header, "PixelRepresentation", 0, 1) == 1
    if bits not in (8, 16, 32):
        raise DicomFault(f"expected 8, 16 or 32 bits a pixel, found {bits}")
    return np.dtype(f"<{'i' if signed else 'u'}{bits // 8}")


def _read_decoded(file: DicomFile, frames: Sequence[int]) -> Iterator[Volume]:
    dataset = _whole(file.path)
    rows, columns = _shape(dataset)
    count = whole_number(dataset, "NumberOfFrames", 1, 65_535) if has_element(dataset, "NumberOfFrames") else 1
    syntax = text(dataset.file_meta, "TransferSyntaxUID")
    if syntax not in _UNCOMPRESSED:
        _check_sizes(dataset, syntax, count, (rows, columns))
    elif len(dataset.get("PixelData", b"")) < count * rows * columns * _stored_dtype(dataset).itemsize:
        raise DicomFault("expected all pixels, found a file that is cut short; copy or export it again")
    decoded = understood("pixels that can be decoded", iter_pixels, dataset, indices=list(frames), raw=True)
    for _ in frames:
        frame: Volume = understood("pixels that can be decoded", next, decoded)
        if frame.shape != (rows, columns):
            raise DicomFault(f"expected {columns} x {rows} pixels, found another size; export it again")
        yield frame


def _whole(path: Path) -> Dataset:
    """The object with its pixels; deflated ones are unpacked within limits."""
    dataset = read_object(path, max_bytes=_MAX_FILE_BYTES)
    if not text(dataset.file_meta, "TransferSyntaxUID"):
        # Files of old programs without a header of their own: pydicom has seen which of the two plain forms it is.
        implicit, little = dataset.original_encoding
        if not little:
            raise DicomFault("expected a file that says how its pixels are stored, found none; export it again")
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset


def _check_sizes(dataset: Dataset, syntax: str, count: int, shape: tuple[int, int]) -> None:
    """A DicomFault unless every compressed frame says itself that it has this shape."""
    content = understood("pixels", dataset.get, "PixelData")
    if not isinstance(content, bytes):
        raise DicomFault("expected pixels, found none; export it again")
    if syntax == RLELossless:
        return  # pydicom unpacks no more than rows x columns of it
    found = understood(
        "compressed pixels", lambda: [_size(one) for one in generate_frames(content, number_of_frames=count)]
    )
    if len(found) != count or any(size != shape for size in found):
        raise DicomFault(f"expected {count} compressed frame(s) of {shape[1]} x {shape[0]} pixels, found others")


def _size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a compressed frame says it has; None when it does not."""
    at = stream.find(_JPEG_2000)
    if at >= 0:
        values = [int.from_bytes(stream[at + 8 + 4 * i : at + 12 + 4 * i], "big") for i in range(4)]
        return values[1] - values[3], values[0] - values[2]
    at = 2
    while 0 <= at < len(stream) - 9 and stream[at] == 0xFF:
        if stream[at + 1] in _JPEG_FRAMES:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
        at += 1 if stream[at + 1] == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def _without_unused_bits(header: Dataset, frame: Volume) -> Volume:
    bits = frame.dtype.itemsize * 8
    stored = whole_number(header, "BitsStored", 1, 64) if has_element(header, "BitsStored") else bits
    if frame.dtype.kind not in "iu" or stored >= bits:
        return frame
    unused = bits - stored
    cleared: Volume = (frame << unused) >> unused
    return cleared
