"""One slice of an image, wherever it is stored: a file of its own, or a frame of a multi-frame file.

Source: PS3.3, C.7.6.2 (image plane), C.7.6.16 (functional groups of enhanced objects).

Invariants: an element of a frame goes before the same element of the whole file; what tells slices of one place
apart (echo, time, diffusion, part of a complex number) is kept as one key, in which absent is a value, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from dafne_dante.annotations.dicom.elements import (
    DicomFault,
    first_item,
    has_element,
    items,
    numbers,
    texts,
    whole_number,
)
from dafne_dante.annotations.dicom.files import DicomFile
from dafne_dante.annotations.dicom.planes import Plane, read_plane

__all__ = ["MAX_FRAMES", "Slice", "slices_of"]

MAX_FRAMES = 20_000
_MAX_EDGE = 65_535
_APART = {
    "FrameType": "MRImageFrameTypeSequence",
    "ImageType": "",
    "EchoTime": "",
    "EchoNumbers": "",
    "EffectiveEchoTime": "MREchoSequence",
    "TemporalPositionIdentifier": "",
    "TemporalPositionIndex": "FrameContentSequence",
    "StackID": "FrameContentSequence",
    "DiffusionBValue": "",
    "TriggerTime": "",
    "AcquisitionNumber": "",
}
"""What may tell two slices of one place apart, and the functional group that it is in."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One plane of pixels.

    Attributes:
        frame: its number in the file, from 0.
        plane: where it lies.
        thickness_mm: of the slice, or between slices, as the header claims; 0 when it says nothing.
        slope, intercept: from stored to real values.
        groups: the functional groups that describe it, the frame's own first; none for a file of its own.
    """

    file: DicomFile
    frame: int
    plane: Plane
    thickness_mm: float
    slope: float
    intercept: float
    groups: tuple[Dataset, ...] = field(repr=False)

    def apart(self) -> tuple[str, ...]:
        """What may tell it from others of the same place; read only when there are any."""
        return tuple(_told(keyword, macro, self.groups, self.file.header) for keyword, macro in _APART.items())


def slices_of(file: DicomFile) -> list[Slice]:
    """All slices in a file; a DicomFault when it is no image of the patient in grey values."""
    header = file.header
    if not has_element(header, "Rows") or not has_element(header, "Columns"):
        raise DicomFault("expected an image or labels, found an object without pixels")
    if has_element(header, "SamplesPerPixel") and whole_number(header, "SamplesPerPixel", 1, 4) != 1:
        raise DicomFault("expected one number a pixel, found colours")
    shape = whole_number(header, "Rows", 1, _MAX_EDGE), whole_number(header, "Columns", 1, _MAX_EDGE)
    if has_element(header, "PerFrameFunctionalGroupsSequence"):
        return list(_frames(file, shape))
    if has_element(header, "NumberOfFrames") and whole_number(header, "NumberOfFrames", 1, MAX_FRAMES) > 1:
        raise DicomFault("expected a position for every frame, found frames without any")
    return [_slice(file, 0, (), shape)]


def _frames(file: DicomFile, shape: tuple[int, int]) -> Iterator[Slice]:
    groups = items(file.header, "PerFrameFunctionalGroupsSequence")
    count = whole_number(file.header, "NumberOfFrames", 1, MAX_FRAMES)
    if len(groups) != count:
        raise DicomFault(f"expected a description of each of {count} frames, found {len(groups)}; export it again")
    shared = first_item(file.header, "SharedFunctionalGroupsSequence") or Dataset()
    for number, group in enumerate(groups):
        yield _slice(file, number, (group, shared), shape)


def _slice(file: DicomFile, frame: int, groups: tuple[Dataset, ...], shape: tuple[int, int]) -> Slice:
    position = _holder("PlanePositionSequence", "ImagePositionPatient", groups, file.header)
    directions = _holder("PlaneOrientationSequence", "ImageOrientationPatient", groups, file.header)
    measures = _holder("PixelMeasuresSequence", "PixelSpacing", groups, file.header)
    if position is None or directions is None or measures is None:
        raise DicomFault("expected the position, orientation and pixel spacing of a slice in the patient, found none")
    values = _holder("PixelValueTransformationSequence", "RescaleSlope", groups, file.header)
    return Slice(
        file,
        frame,
        read_plane(position, directions, measures, shape),
        _optional(measures, "SpacingBetweenSlices") or _optional(measures, "SliceThickness"),
        1.0 if values is None else _optional(values, "RescaleSlope", 1.0),
        0.0 if values is None else _optional(values, "RescaleIntercept"),
        groups,
    )


def _holder(macro: str, keyword: str, groups: Sequence[Dataset], whole: Dataset) -> Dataset | None:
    """What holds the element: the first macro of a group that does, else the whole object."""
    for group in groups:
        item = first_item(group, macro) if macro else None
        if item is not None and has_element(item, keyword):
            return item
    return whole if has_element(whole, keyword) else None


def _told(keyword: str, macro: str, groups: Sequence[Dataset], whole: Dataset) -> str:
    holder = _holder(macro, keyword, groups, whole)
    if holder is None:
        return ""
    return "\\".join(texts(holder, keyword))


def _optional(dataset: Dataset, keyword: str, default: float = 0.0) -> float:
    return float(numbers(dataset, keyword, 1)[0]) if has_element(dataset, keyword) else default
