"""DICOM-SEG: segments as frames of pixels (PS3.3, A.51 and A.92; Segmentation and Label Map Segmentation Storage).

Terms: a *segment* has a number and a label. In a *binary* object each frame belongs to one segment; in a *fractional*
one, too, and its pixels run from 0 to MaximumFractionalValue; in a *label map* a pixel is a segment's number.

Invariants
- Frames are placed by their plane alone (see `planes`). A frame that is missing is a slice without that segment.
- A fractional pixel counts where it is at least half of MaximumFractionalValue, be it a probability or an occupancy.
- Several segments of one label are one label. Frames of two labels may overlap; the later label stays.
- Only frames of labels that are wanted are decoded (see `frames`), after all planes have found their place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from dafne_dante.annotations.dicom.elements import (
    DicomFault,
    check_still_there,
    first_item,
    has_element,
    items,
    label_text,
    read_object,
    text,
    told_of,
    whole_number,
)
from dafne_dante.annotations.dicom.frames import FrameLayout, decoded_frame, packed_frames, read_frame_layout
from dafne_dante.annotations.dicom.planes import Lattice, Place, Plane, place_plane, read_plane
from dafne_dante.annotations.dicom.referenced import References, content_time, image_references
from dafne_dante.annotations.study import EmptySlices
from dafne_dante.errors import UnknownLabelError
from dafne_dante.types import Volume

__all__ = ["SEGMENTATION_CLASSES", "SegmentationObject", "describe_segmentation"]

SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of Segmentation Storage and Label Map Segmentation Storage."""

_KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")
_MAX_NUMBER = 65_535
_UNDECLARED = 65_535


@dataclass(frozen=True)
class SegmentationObject:
    """One DICOM-SEG that was found; a LabelObject (see `referenced`)."""

    path: Path
    labels: tuple[str, ...]
    references: References
    content_time: str
    empty_slices: EmptySlices = "background"

    @property
    def name(self) -> str:
        """Base name of the file."""
        return self.path.name

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def draw(self, ranks: Mapping[str, int], lattice: Lattice, onto: Volume) -> tuple[str, ...]:
        """As `LabelObject.draw`; ranks are 1 to 65,534."""
        with told_of(self.name):
            dataset = read_object(self.path, pixels=bool(ranks))
            layout = _read_layout(dataset)
            places = [place_plane(lattice, plane) for plane in _planes(dataset, layout)]
            check_still_there(ranks, layout.segments.values())
            if ranks:
                _draw_frames(dataset, layout, places, _ranks_of_numbers(layout, ranks), onto)
        return ()


def describe_segmentation(path: Path, header: Dataset) -> SegmentationObject:
    """The segments of an object whose header (with or without pixels) was read.

    Raises:
        UnreadableImageError: the header is damaged, or of a kind that we do not read.
        AnnotationError: a segment has no proper label.
    """
    with told_of(path.name):
        layout = _read_layout(header)
        labels = tuple(dict.fromkeys(layout.segments.values()))
        return SegmentationObject(path, labels, image_references(header), content_time(header))


@dataclass(frozen=True)
class _Layout:
    """What is the same for all frames; `segments` maps a number to its label, without the background."""

    kind: Literal["BINARY", "FRACTIONAL", "LABELMAP"]
    segments: Mapping[int, str]
    background: int
    frames: FrameLayout
    half: float


def _read_layout(dataset: Dataset) -> _Layout:
    kind = text(dataset, "SegmentationType")
    if kind not in _KINDS:
        raise DicomFault(f"expected a segmentation that is one of {', '.join(_KINDS)}, found another kind; convert it")
    maximum = whole_number(dataset, "MaximumFractionalValue", 1, 255) if kind == "FRACTIONAL" else 1
    padded = has_element(dataset, "PixelPaddingValue")
    background = whole_number(dataset, "PixelPaddingValue", 0, _MAX_NUMBER) if kind == "LABELMAP" and padded else 0
    return _Layout(
        kind=kind,  # type: ignore[arg-type]  # checked above
        segments=_segments(dataset, background if kind == "LABELMAP" else None),
        background=background,
        frames=read_frame_layout(dataset),
        half=maximum / 2,
    )


def _segments(dataset: Dataset, background: int | None) -> dict[int, str]:
    found: dict[int, str] = {}
    for item in items(dataset, "SegmentSequence"):
        number = whole_number(item, "SegmentNumber", 0, _MAX_NUMBER - 1)
        if number in found:
            raise DicomFault("expected a number of its own for every segment, found one twice; export it again")
        if number != background:
            found[number] = label_text(item, "SegmentLabel")
    if not found:
        raise DicomFault("expected at least one segment, found none; export it again")
    return found


def _planes(dataset: Dataset, layout: _Layout) -> Iterator[Plane]:
    """The plane of each frame, in the order of the frames."""
    shared = first_item(dataset, "SharedFunctionalGroupsSequence") or Dataset()
    own = items(dataset, "PerFrameFunctionalGroupsSequence")
    count, shape = layout.frames.count, (layout.frames.rows, layout.frames.columns)
    if len(own) != count:
        raise DicomFault(f"expected {count} frames with their planes, found {len(own)}; export it again")
    for group in own:
        position, directions = _group(group, shared, "PlanePosition"), _group(group, shared, "PlaneOrientation")
        yield read_plane(position, directions, _group(group, shared, "PixelMeasures"), shape)


def _group(own: Dataset, shared: Dataset, name: str) -> Dataset:
    """A functional group of one frame: its own, else that of all."""
    found = first_item(own, f"{name}Sequence") or first_item(shared, f"{name}Sequence")
    if found is None:
        raise DicomFault(f"expected frames with a {name} in the patient, found none; slides and projections have none")
    return found


def _ranks_of_numbers(layout: _Layout, ranks: Mapping[str, int]) -> Volume:
    """(65536,) uint16: the rank of each segment number, 0 where it is not wanted."""
    table = np.full(_MAX_NUMBER + 1, _UNDECLARED, dtype=np.uint16)
    table[layout.background] = 0
    for number, label in layout.segments.items():
        table[number] = ranks.get(label, 0)
    return table


def _draw_frames(dataset: Dataset, layout: _Layout, places: list[Place], table: Volume, onto: Volume) -> None:
    numbers_of_frames = None if layout.kind == "LABELMAP" else _numbers_of_frames(dataset, layout)
    for index, packed in enumerate(packed_frames(dataset, layout.frames)):
        rank = 0 if numbers_of_frames is None else table[numbers_of_frames[index]]
        if numbers_of_frames is not None and not rank:
            continue
        frame = decoded_frame(dataset, layout.frames, packed, index)
        drawn = rank * (frame >= layout.half).astype(np.uint16) if rank else table[frame]
        if drawn.max(initial=0) == _UNDECLARED:
            raise DicomFault("expected pixels that are numbers of segments, found another", UnknownLabelError)
        target = places[index].slice_of(onto)
        np.maximum(target, places[index].oriented(drawn), out=target)


def _numbers_of_frames(dataset: Dataset, layout: _Layout) -> list[int]:
    """The segment of each frame."""
    shared = first_item(dataset, "SharedFunctionalGroupsSequence") or Dataset()
    found = []
    for group in items(dataset, "PerFrameFunctionalGroupsSequence"):
        number = whole_number(_group(group, shared, "SegmentIdentification"), "ReferencedSegmentNumber", 0, _MAX_NUMBER)
        if number not in layout.segments:
            raise DicomFault("expected frames of declared segments, found one of another; export it again")
        found.append(number)
    return found
