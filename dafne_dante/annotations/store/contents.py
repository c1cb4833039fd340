"""A Case as bytes and back, a block at a time: what is inside a sealed file.

Layout: 4 bytes (big-endian) with the length of the header; the header, JSON; one zlib stream with the segmentation
(C order, uint8) and then the image (C order, channel by channel) in blocks of 2^20 values. The bytes of a block are
stored by significance: all lowest bytes, then all second lowest, and so on, so that what changes slowly lies together
and is packed well by run lengths alone, which zlib does quickest (benchmarks/case_store.py).

Invariants: what comes back equals what went in, bit for bit, so that it has the same pseudonym; intensities that are
whole numbers in the range of a smaller type are stored as that type; beyond the case itself, memory holds a block.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dafne_dante.annotations.case import Case
from dafne_dante.errors import AnnotationError, StorageError
from dafne_dante.types import Image

__all__ = ["CaseHeader", "decode_case", "decode_header", "describe", "encode_case"]

_BLOCK_VALUES = 1 << 20
_LENGTH_BYTES = 4
_MAX_HEADER_BYTES = 1 << 20
_VERSION = 1
_SMALLER = ("<u1", "<i2", "<u2")
_ORIGINAL = "<f4"


@dataclass(frozen=True)
class CaseHeader:
    """What is known of a stored case without its voxels.

    Attributes:
        case_id: its pseudonym.
        labels: in the order of the segmentation's values.
        channels: contrasts of the image.
        shape: voxels along X, Y, Z.
        annotated: for each slice "1" when somebody labelled it, else "0".
        affine: the (4, 4) of the case, row by row.
        stored_as: the dtype of the intensities in the file, as numpy writes it.
        digest: SHA-256 of everything that the case consists of; equal cases have equal ones.
        saved_ns: when it was saved, nanoseconds since 1970; a later version has a greater one.
    """

    case_id: str
    labels: tuple[str, ...]
    channels: int
    shape: tuple[int, int, int]
    annotated: str
    affine: tuple[float, ...]
    stored_as: str
    digest: str
    saved_ns: int

    @property
    def annotated_slices(self) -> int:
        """How many slices somebody labelled."""
        return self.annotated.count("1")

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps({"version": _VERSION, **asdict(self)}, sort_keys=True).encode()


def describe(case: Case, *, saved_ns: int) -> CaseHeader:
    """The header of a case that is saved now."""
    header = CaseHeader(
        case_id=case.case_id,
        labels=case.labels,
        channels=case.image.shape[0],
        shape=case.shape,
        annotated="".join("1" if labelled else "0" for labelled in case.annotated),
        affine=tuple(float(value) for value in case.affine.reshape(-1)),
        stored_as=_smallest_type(case.image),
        digest="",
        saved_ns=saved_ns,
    )
    facts = json.dumps([header.case_id, header.labels, header.annotated, header.affine, header.channels, header.shape])
    digest = hashlib.sha256(facts.encode())
    digest.update(np.ascontiguousarray(case.segmentation).data)
    digest.update(np.ascontiguousarray(case.image, dtype=_ORIGINAL).data)
    return CaseHeader(**{**_fields(header), "digest": digest.hexdigest()})


def decode_header(content: bytes, name: str) -> CaseHeader:
    """The header in JSON; StorageError when it is not one of ours. `name` is what messages call the case."""
    try:
        found = json.loads(content)
        if found.pop("version") != _VERSION:
            raise ValueError("version")
        header = CaseHeader(**found)
        x, y, z = header.shape
        return CaseHeader(
            **{
                **_fields(header),
                "labels": tuple(header.labels),
                "shape": (int(x), int(y), int(z)),
                "affine": tuple(map(float, header.affine)),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unknown(name) from error


def encode_case(case: Case, header: CaseHeader) -> Iterator[bytes]:
    """The content of a case's file, in pieces."""
    head = header.to_bytes()
    yield len(head).to_bytes(_LENGTH_BYTES, "big") + head
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    for values, stored_as in ((case.segmentation, "<u1"), (case.image, header.stored_as)):
        flat = np.ascontiguousarray(values).reshape(-1)
        for start in range(0, flat.size, _BLOCK_VALUES):
            block = flat[start : start + _BLOCK_VALUES].astype(stored_as)
            yield packer.compress(block.view(np.uint8).reshape(block.size, -1).T.tobytes())
    yield packer.flush()


def decode_case(content: Iterator[bytes], name: str) -> tuple[CaseHeader, Case]:
    """The case in a file's content; `content` is read to its end, so that it is known to be complete.

    Raises:
        StorageError: what `content` raises, or it is of another program or version.
    """
    waiting = bytearray()
    header = decode_header(_head(content, waiting, name), name)
    inflated = _Inflated(content, bytes(waiting), name)
    try:
        segmentation = np.empty(header.shape, dtype=np.uint8)
        image = np.empty((header.channels, *header.shape), dtype=np.float32)
        _fill(segmentation, inflated, "<u1")
        _fill(image, inflated, header.stored_as)
        inflated.finish()
        annotated = np.array([mark == "1" for mark in header.annotated], dtype=np.bool_)
        affine = np.array(header.affine, dtype=np.float64).reshape(4, 4)
        return header, Case(header.case_id, image, segmentation, annotated, affine, header.labels)
    except (ValueError, TypeError, zlib.error, AnnotationError) as error:
        raise _unknown(name) from error
    except MemoryError as error:
        raise StorageError(f"{name}: expected it to fit into memory, found too little") from error


def _head(content: Iterator[bytes], waiting: bytearray, name: str) -> bytes:
    """The bytes of the header; what was read beyond them stays in `waiting`."""
    needed = _LENGTH_BYTES
    while len(waiting) < needed:
        piece = next(content, b"")
        waiting += piece
        if len(waiting) >= _LENGTH_BYTES:
            needed = _LENGTH_BYTES + int.from_bytes(waiting[:_LENGTH_BYTES], "big")
        if not piece or needed > _MAX_HEADER_BYTES:
            raise _unknown(name)
    head = bytes(waiting[_LENGTH_BYTES:needed])
    del waiting[:needed]
    return head


class _Inflated:
    """The bytes of a zlib stream that comes in pieces, never unpacked beyond what is asked for."""

    def __init__(self, content: Iterator[bytes], first: bytes, name: str) -> None:
        self._content, self._packed, self._name = content, first, name
        self._unpacker = zlib.decompressobj()

    def read(self, length: int) -> bytes:
        """Exactly `length` bytes; StorageError when there are fewer."""
        found = bytearray()
        while len(found) < length:
            if not self._packed and (piece := next(self._content, None)) is not None:
                self._packed = piece
            unpacked = self._unpacker.decompress(self._packed, length - len(found))
            if not unpacked and not self._unpacker.unconsumed_tail and not self._packed:
                raise _unknown(self._name)
            self._packed = self._unpacker.unconsumed_tail
            found += unpacked
        return bytes(found)

    def finish(self) -> None:
        """Read to the end; StorageError when anything but the end of the stream is left."""
        for piece in [self._packed, *self._content]:
            if self._unpacker.decompress(piece, 1):
                raise _unknown(self._name)
        if not self._unpacker.eof or self._unpacker.unused_data:
            raise _unknown(self._name)


def _fill(values: npt.NDArray[Any], inflated: _Inflated, stored_as: str) -> None:
    """Fill an array, in C order, from the blocks in a stream."""
    if stored_as not in (*_SMALLER, _ORIGINAL):
        raise ValueError("dtype")
    flat, size = values.reshape(-1), np.dtype(stored_as).itemsize
    for start in range(0, flat.size, _BLOCK_VALUES):
        count = min(_BLOCK_VALUES, flat.size - start)
        planes = np.frombuffer(inflated.read(count * size), dtype=np.uint8).reshape(size, count)
        flat[start : start + count] = np.ascontiguousarray(planes.T).view(stored_as)[:, 0]


def _smallest_type(image: Image) -> str:
    """The smallest type that gives back the same bits; a negative zero is none of its values."""
    low, high = float(image.min(initial=0)), float(image.max(initial=0))
    for stored_as in _SMALLER:
        limits = np.iinfo(stored_as)
        if limits.min <= low and high <= limits.max:
            return stored_as if _fits(image, stored_as) else _ORIGINAL
    return _ORIGINAL


def _fits(image: Image, stored_as: str) -> bool:
    flat = np.ascontiguousarray(image).reshape(-1)
    for start in range(0, flat.size, _BLOCK_VALUES):
        block = flat[start : start + _BLOCK_VALUES]
        if not np.array_equal(block.astype(stored_as).astype(np.float32).view(np.uint32), block.view(np.uint32)):
            return False
    return True


def _fields(header: CaseHeader) -> dict[str, Any]:
    return dict(vars(header))


def _unknown(name: str) -> StorageError:
    return StorageError(
        f"{name}: expected a case as this version of dafne-dante stores it, found another content; update dafne-dante"
    )
