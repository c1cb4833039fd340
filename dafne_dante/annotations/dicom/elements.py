"""Elements of a DICOM object that nobody has vouched for, each read as what it ought to be.

Invariants
- pydicom converts an element when it is asked for, and objects to a bad one in many ways. Whatever it raises becomes
  a `DicomFault` here, and nowhere else; the fault names the keyword, never the element's value.
- A fault has no file name yet; `told_of` adds it, and makes an error of it: UnreadableImageError unless it says more.
- A file is no longer than its limit, and a deflated one (PS3.5, A.5) does not unpack to more than the same limit.
- pydicom's warnings quote values of elements, so inside `told_of` they go neither to the screen nor to a log.
"""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import DecimalException
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dafne_dante.annotations.nifti.files import checked_label
from dafne_dante.durable import read_bounded
from dafne_dante.errors import AnnotationError, UnreadableImageError
from dafne_dante.types import Volume

__all__ = [
    "FOREIGN_ERRORS",
    "MAX_OBJECT_BYTES",
    "DicomFault",
    "check_still_there",
    "first_item",
    "has_element",
    "items",
    "label_text",
    "numbers",
    "read_object",
    "text",
    "texts",
    "told_of",
    "understood",
    "whole_number",
]

MAX_OBJECT_BYTES = 2 << 30
"""Bytes of one label object on disk, and of what it unpacks to."""

# What pydicom and highdicom were seen to raise over mutated files, beside OSError from the file itself.
FOREIGN_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    DecimalException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""All that pydicom, its decoders and highdicom raise over a file that is damaged."""
_MAX_NUMBER = 1e9  # millimetres: nothing in a patient is farther away
_DECIMALS = ("DS", "UN", None)  # UN: what explicit VR makes of more than 64 KiB; None: implicit VR
_PLAIN_TEXT = ("CS", "UI")
_META_START = 132  # preamble and "DICM" (PS3.10, 7.1)
_GROUP_LENGTH_BYTES = 12

_Answer = TypeVar("_Answer")


class DicomFault(Exception):  # noqa: N818 (never leaves the package: told_of makes an error of it)
    """What is wrong with an object, in words without its name; `branch` is the error that it becomes."""

    def __init__(self, words: str, branch: type[AnnotationError] = UnreadableImageError) -> None:
        super().__init__(words)
        self.branch = branch


_inside: ContextVar[bool] = ContextVar("inside_told_of", default=False)
logging.getLogger("pydicom").addFilter(lambda record: not _inside.get())


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """Faults inside become errors of their branch, about the file of that base name."""
    token = _inside.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DicomFault as fault:
        raise fault.branch(f"{name}: {fault}") from fault.__cause__
    finally:
        _inside.reset(token)


def understood(what: str, read: Callable[..., _Answer], *arguments: Any, **named: Any) -> _Answer:
    """What a library's `read` makes of something; every way in which it objects becomes one fault."""
    try:
        return read(*arguments, **named)
    except FOREIGN_ERRORS as error:
        raise DicomFault(f"expected {what}, found a damaged one ({type(error).__name__}); export it again") from error


def read_object(path: Path, *, pixels: bool = True, max_bytes: int = MAX_OBJECT_BYTES) -> Dataset:
    """The object in the file, bounded; a DicomFault when it cannot be parsed.

    Raises:
        StorageError: the file cannot be opened, or is longer than `max_bytes`.
    """
    if not path.is_file():
        raise DicomFault("expected a file, found a folder, a device or nothing")
    content = read_bounded(path, max_bytes=max_bytes)
    if DeflatedExplicitVRLittleEndian.encode() in content:
        meta = understood("the header of a DICOM file", read_file_meta_info, path)
        if text(meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return _read_deflated(content, meta, max_bytes)
    dataset: Dataset = understood(
        "a DICOM file", dcmread, io.BytesIO(content), stop_before_pixels=not pixels, force=True
    )
    return dataset


def _read_deflated(content: bytes, meta: FileMetaDataset, max_bytes: int) -> Dataset:
    """pydicom would unpack without a limit; so it is given what we unpacked, and told that it never was packed."""
    length = whole_number(meta, "FileMetaInformationGroupLength", 0, len(content))
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = content[_META_START + _GROUP_LENGTH_BYTES + length :]
    unpacked = understood("a deflated object", unpacker.decompress, packed, max_bytes + 1)
    if len(unpacked) > max_bytes:
        raise DicomFault(f"expected an object that unpacks to at most {max_bytes} bytes, found more")
    dataset: Dataset = understood(
        "a deflated object", read_dataset, io.BytesIO(unpacked), is_implicit_VR=False, is_little_endian=True
    )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def check_still_there(wanted: Iterable[str], labels: Iterable[str]) -> None:
    """A DicomFault when an object has lost labels since it was found."""
    lost = sorted(set(wanted) - set(labels))
    if lost:
        raise DicomFault(f"expected the labels {', '.join(lost)}, found none of that name any more; search again")


def has_element(dataset: Dataset, keyword: str) -> bool:
    """Whether the element is there and not empty."""
    stored = _unconverted(dataset, keyword)
    if stored is not None and stored.value.strip(b" \0"):
        return True
    return _value(dataset, keyword) not in (None, "", [])


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none when it is absent."""
    found = _value(dataset, keyword)
    if found is None:
        return []
    listed: list[Any] = understood(f"a sequence {keyword}", list, found)
    if not all(isinstance(item, Dataset) for item in listed):
        raise DicomFault(f"expected a sequence {keyword}, found something else; export it again")
    return listed


def first_item(dataset: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence; None when there is none."""
    found = items(dataset, keyword)
    return found[0] if found else None


def text(dataset: Dataset, keyword: str) -> str:
    """One string, trimmed; empty when the element is absent."""
    stored = _unconverted(dataset, keyword)
    if stored is not None and stored.VR in _PLAIN_TEXT and stored.value.isascii():
        first: bytes = stored.value.split(b"\\", 1)[0]
        return first.decode("ascii").strip(" \0")
    found = _value(dataset, keyword)
    if isinstance(found, MultiValue):
        found = found[0] if len(found) else ""
    return "" if found is None else str(found).strip()


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """Every string of an element, trimmed; none when it is absent."""
    found = _value(dataset, keyword)
    if found is None:
        return []
    return [str(one).strip() for one in found] if isinstance(found, MultiValue) else [str(found).strip()]


def label_text(dataset: Dataset, keyword: str) -> str:
    """The name of a label, trimmed and checked."""
    try:
        return checked_label(text(dataset, keyword), keyword)
    except AnnotationError as error:
        raise DicomFault(str(error), AnnotationError) from None


def whole_number(dataset: Dataset, keyword: str, lowest: int, highest: int) -> int:
    """One whole number in the range, both ends included."""
    stored = _unconverted(dataset, keyword)
    found: Any
    if stored is not None and stored.VR == "US" and len(stored.value) == 2:
        found = int.from_bytes(stored.value, "little" if stored.is_little_endian else "big")
    else:
        found = _value(dataset, keyword)
    if isinstance(found, bool) or not isinstance(found, int) or not lowest <= found <= highest:
        seen = found if isinstance(found, int) else "none" if found is None else "something else"
        raise DicomFault(f"expected {keyword} from {lowest} to {highest}, found {seen}; export it again")
    return int(found)


def numbers(dataset: Dataset, keyword: str, count: int | None = None) -> Volume:
    """(N,) float64, finite and below 1e9; N is `count` where it is given.

    Decimal strings that pydicom has not converted yet are converted here at once: contours hold a million of them.
    """
    stored = _unconverted(dataset, keyword)
    if stored is not None and stored.VR in _DECIMALS:
        pieces: Any = stored.value.rstrip(b" \0").split(b"\\")
    else:
        pieces = _value(dataset, keyword)
        pieces = [] if pieces is None else list(pieces) if isinstance(pieces, MultiValue | list | tuple) else [pieces]
    found: Volume = understood(f"numbers in {keyword}", _as_floats, pieces)
    if (count is not None and len(found) != count) or not (np.abs(found) < _MAX_NUMBER).all():
        raise DicomFault(f"expected {count or 'finite'} numbers in {keyword}, found others; export it again")
    return found


def _as_floats(pieces: list[Any]) -> Volume:
    if pieces in ([], [b""]):
        return np.zeros(0)
    return np.asarray(pieces).astype(np.float64).reshape(-1)


def _unconverted(dataset: Dataset, keyword: str) -> Any:
    """The element as it is in the file, its value bytes; None where pydicom has made something of it, or it is absent.

    pydicom's conversion is half of the time of reading a series; simple values need none of it.
    """
    tag = _tag(keyword)
    if tag not in dataset:
        return None
    stored: Any = understood(f"a sound {keyword}", dataset.get_item, tag)
    return stored if isinstance(stored, RawDataElement) and isinstance(stored.value, bytes) else None


def _value(dataset: Dataset, keyword: str) -> Any:
    tag = _tag(keyword)
    if tag not in dataset:
        return None
    return understood(f"a sound {keyword}", dataset.__getitem__, tag).value


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)
