"""DICOM files by their headers; pixels stay where they are.

Terms: a *header* is everything in front of the pixels. Of an image only the elements that we use are kept, since a
series has hundreds of files; of other objects all.

Invariants
- What is DICOM is told by content: "DICM" behind a preamble (PS3.10, 7.1), or a first element of group 2 or 8 in
  files of old programs that have none. Names do not count.
- At most 256 MiB of a file are read for its header, and deflated files unpack to no more than `elements` allows.
- Whatever a file does to pydicom, it is left with a reason, and costs no other file anything.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from dafne_dante.annotations.dicom.elements import FOREIGN_ERRORS, DicomFault, has_element, read_object, text, told_of
from dafne_dante.annotations.study import Left
from dafne_dante.errors import AnnotationError, StorageError

__all__ = ["DicomFile", "read_headers"]

_MAX_HEADER_BYTES = 256 << 20
_MAX_FILE_BYTES = 8 << 30
_FIRST_BYTES = 128 << 10  # holds nearly every header, and is read in one go
_SIGNATURE_AT = 128
_SIGNATURE = b"DICM"
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_NO_DICOM = "expected NIfTI, DICOM or a Dafne bundle, found something else"

_WHOLE = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.481.3")
"""Segmentations, label maps and structure sets (PS3.4, B.5): what they say lies in elements that images lack."""
_OF_IMAGES = [
    "TransferSyntaxUID", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality",
    "FrameOfReferenceUID", "SeriesDescription", "ImageType", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope",
    "RescaleIntercept", "EchoTime", "EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue",
    "AcquisitionNumber", "TriggerTime", "InstanceNumber", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class DicomFile:
    """One file.

    Attributes:
        header: its elements, without pixels.
        syntax: UID of the transfer syntax that the file is stored in.
        sop_class_uid, sop_instance_uid, series_uid, study_uid, modality: of the header, trimmed; empty when absent.
        pixels_at: where in the file the element with the pixels begins; 0 when that is not known.
    """

    path: Path
    header: Dataset = field(repr=False)
    syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    modality: str
    pixels_at: int


def read_headers(paths: Iterable[Path]) -> tuple[list[DicomFile], list[Left]]:
    """The DICOM files among the paths, in their order, and what is left, with the reason."""
    found: list[DicomFile] = []
    left: list[Left] = []
    for path in paths:
        try:
            with told_of(path.name):
                found.append(_read(path))
        except (AnnotationError, StorageError) as error:
            left.append(Left(path.name, str(error)))
    return found, left


def _read(path: Path) -> DicomFile:
    if not path.is_file():
        raise DicomFault("expected a file, found a folder, a device or nothing")
    try:
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            raise DicomFault(f"expected at most {_MAX_FILE_BYTES} bytes, found more")
        with path.open("rb", buffering=0) as stream:
            start = stream.read(_FIRST_BYTES)
            if start[_SIGNATURE_AT : _SIGNATURE_AT + 4] != _SIGNATURE and start[:2] not in _FIRST_GROUPS:
                raise DicomFault(_NO_DICOM)
            header, pixels_at = _header_in(start, whole=len(start) == size)
            if header is None:
                header, pixels_at = _header_in(start + stream.read(_MAX_HEADER_BYTES), whole=True)
    except OSError as error:
        raise StorageError(f"cannot read {path.name}: {error.strerror or type(error).__name__}") from error
    if header is None:
        raise DicomFault(_NO_DICOM)
    return _described(path, header, pixels_at)


def _header_in(content: bytes, *, whole: bool) -> tuple[FileDataset | None, int]:
    """The header, and where it ends; None when it may go on behind what was read."""
    stream = io.BytesIO(content)
    try:
        header = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=_OF_IMAGES)
    except FOREIGN_ERRORS as error:
        if not whole:
            return None, 0
        raise DicomFault(
            f"expected a DICOM file, found a damaged one ({type(error).__name__}); export it again"
        ) from error
    return (header, stream.tell()) if whole or stream.tell() < len(content) else (None, 0)


def _described(path: Path, header: Dataset, pixels_at: int) -> DicomFile:
    syntax = text(header.file_meta, "TransferSyntaxUID")
    kind = text(header, "SOPClassUID") or text(header.file_meta, "MediaStorageSOPClassUID")
    if kind == MediaStorageDirectoryStorage:
        raise DicomFault("an index of files; the files themselves are read")
    if syntax == DeflatedExplicitVRLittleEndian or kind in _WHOLE or not has_element(header, "Rows"):
        header, pixels_at = read_object(path, pixels=False), 0
    if not kind or not text(header, "SOPInstanceUID"):
        raise DicomFault(_NO_DICOM)
    names = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality")
    instance, series, study, modality = (text(header, name) for name in names)
    return DicomFile(path, header, syntax, kind, instance, series, study, modality, pixels_at)
