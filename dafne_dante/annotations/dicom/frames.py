"""Frames of whole numbers in a label object, decoded one at a time through highdicom.

Invariants
- Nothing is allocated by what a header claims: there are as many bytes as the frames need before the first is
  decoded, and a compressed frame is at most twice as long as its pixels, so that what it unpacks to is bounded, too.
- Transfer syntaxes with loss are refused: a label's border would be where the compression put it.

highdicom's `Segmentation` is not built: it refuses objects for attributes that we do not need, allocates by a claimed
number of frames, and its warnings quote UIDs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dafne_dante.annotations.dicom.elements import DicomFault, text, understood, whole_number
from dafne_dante.types import Volume

__all__ = ["FrameLayout", "decoded_frame", "packed_frames", "read_frame_layout"]

_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
_COMPRESSED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)
_MAX_FRAMES = 200_000
_MAX_EDGE = 65_535
_LONGEST_HEADER = 1 << 16  # bytes of one compressed frame that are no pixels


@dataclass(frozen=True)
class FrameLayout:
    """How many frames there are, how large, and how many bits (1, 8 or 16) a pixel has."""

    count: int
    rows: int
    columns: int
    bits: int


def read_frame_layout(dataset: Dataset) -> FrameLayout:
    """The layout as the header has it; a DicomFault when it is none that we read."""
    if whole_number(dataset, "SamplesPerPixel", 1, 4) != 1:
        raise DicomFault("expected one number a pixel, found colours; export it again")
    bits = whole_number(dataset, "BitsAllocated", 1, 16)
    if bits not in (1, 8, 16):
        raise DicomFault(f"expected 1, 8 or 16 bits a pixel, found {bits}; export it again")
    rows, columns = (whole_number(dataset, keyword, 1, _MAX_EDGE) for keyword in ("Rows", "Columns"))
    return FrameLayout(whole_number(dataset, "NumberOfFrames", 1, _MAX_FRAMES), rows, columns, bits)


def packed_frames(dataset: Dataset, layout: FrameLayout) -> Iterator[bytes]:
    """The bytes of each frame in turn, as `decoded_frame` takes them; a DicomFault when there are too few."""
    syntax = _transfer_syntax(dataset)
    content = understood("pixels", dataset.get, "PixelData")
    if not isinstance(content, bytes) or syntax not in _NATIVE + _COMPRESSED:
        raise DicomFault("expected pixels, plain or compressed without loss (RLE, JPEG-LS, JPEG 2000); convert it")
    return _native_frames(content, layout) if syntax in _NATIVE else _compressed_frames(content, layout)


def decoded_frame(dataset: Dataset, layout: FrameLayout, packed: bytes, index: int) -> Volume:
    """(rows, columns) of unsigned whole numbers; `index` is that of the frame, from 0."""
    # Here, because it takes 18 MiB that a site without such objects never needs.
    from highdicom.frame import decode_frame  # noqa: PLC0415

    frame: Volume = understood(
        "pixels",
        decode_frame,
        value=packed,
        transfer_syntax_uid=_transfer_syntax(dataset),
        rows=layout.rows,
        columns=layout.columns,
        samples_per_pixel=1,
        bits_allocated=layout.bits,
        bits_stored=layout.bits,
        photometric_interpretation=text(dataset, "PhotometricInterpretation"),
        pixel_representation=0,
        index=index,
    )
    if frame.shape != (layout.rows, layout.columns) or frame.dtype.kind != "u":
        raise DicomFault("expected pixels that are whole numbers in rows and columns, found others; export it again")
    return frame


def _transfer_syntax(dataset: Dataset) -> UID:
    return UID(text(dataset.file_meta, "TransferSyntaxUID"))


def _native_frames(content: bytes, layout: FrameLayout) -> Iterator[bytes]:
    """Frames of one bit a pixel follow each other without a gap, so that one may begin within a byte (PS3.5, 8.1.1)."""
    length = layout.rows * layout.columns * layout.bits
    if len(content) * 8 < length * layout.count:
        raise DicomFault(f"expected {layout.count} frames of pixels, found fewer; copy or export it again")
    for index in range(layout.count):
        yield content[index * length // 8 : -(-(index + 1) * length // 8)]


def _compressed_frames(content: bytes, layout: FrameLayout) -> Iterator[bytes]:
    most = 2 * layout.rows * layout.columns * max(1, layout.bits // 8) + _LONGEST_HEADER
    frames = generate_frames(content, number_of_frames=layout.count)
    for _ in range(layout.count):
        packed = understood("compressed frames", next, frames, b"")
        if not 0 < len(packed) <= most:
            raise DicomFault(f"expected compressed frames of 1 to {most} bytes, found {len(packed)}; export it again")
        yield packed
