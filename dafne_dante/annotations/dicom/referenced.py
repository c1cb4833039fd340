"""Which image a label object says that it belongs to, and how two objects with the same labels are told apart.

Terms
- A *label object* is a DICOM-SEG, a structure set, or what Dafne exports: labels in the patient, without an image.
- It *refers* to the instances and the series that it was drawn on, in places that depend on its kind.
- Its *content time* is when it was drawn. Only the order of two of them is used, and neither is ever shown.

Invariant: references only choose an image; where a label lies in it is told by geometry alone (see `planes`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom.dataset import Dataset

from dafne_dante.annotations.dicom.elements import DicomFault, items, text
from dafne_dante.annotations.dicom.planes import Lattice
from dafne_dante.annotations.study import EmptySlices
from dafne_dante.types import Volume

__all__ = ["LabelObject", "References", "content_time", "image_references", "structure_references"]


@dataclass(frozen=True)
class References:
    """Unique identifiers, never shown: of instances, of series, and of the frame of reference ("" when untold)."""

    instances: frozenset[str]
    series: frozenset[str]
    frame_of_reference: str


class LabelObject(Protocol):
    """Labels that were found and are not read yet."""

    @property
    def name(self) -> str:
        """Base name of its file, or of its folder."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that `draw` opens."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels, each once; the later lies over the earlier."""

    @property
    def references(self) -> References:
        """The image that it was drawn on."""

    @property
    def content_time(self) -> str:
        """Sorts later objects after earlier ones; "" when untold."""

    @property
    def empty_slices(self) -> EmptySlices:
        """What a slice without any mask means in objects of its kind."""

    def draw(self, ranks: Mapping[str, int], lattice: Lattice, onto: Volume) -> tuple[str, ...]:
        """Draw the labels named in `ranks` onto (I, J, K) uint16 on the lattice, where the higher rank stays.

        With no ranks it still checks that everything has its place. Returns notes, each a sentence.

        Raises:
            GeometryMismatchError: something does not lie on the lattice.
            UnreadableImageError, UnknownLabelError, AnnotationError: a file is damaged or contradicts itself.
            StorageError: a file cannot be read.
        """


def image_references(dataset: Dataset) -> References:
    """What an object of the image kind (DICOM-SEG) refers to (PS3.3, C.12.4 and C.7.6.16.2.6)."""
    series, instances = set(), set()
    for item in items(dataset, "ReferencedSeriesSequence"):
        series.add(text(item, "SeriesInstanceUID"))
        instances |= _instances(item, "ReferencedInstanceSequence")
    if not instances:
        groups = items(dataset, "SharedFunctionalGroupsSequence") + items(dataset, "PerFrameFunctionalGroupsSequence")
        for group in groups:
            for derivation in items(group, "DerivationImageSequence"):
                instances |= _instances(derivation, "SourceImageSequence")
    return _references(instances, series, text(dataset, "FrameOfReferenceUID"))


def structure_references(dataset: Dataset) -> References:
    """What a structure set refers to (PS3.3, C.8.8.5); a DicomFault when its regions lie in several frames."""
    frames, series, instances = set(), set(), set()
    for frame in items(dataset, "ReferencedFrameOfReferenceSequence"):
        frames.add(text(frame, "FrameOfReferenceUID"))
        for study in items(frame, "RTReferencedStudySequence"):
            for item in items(study, "RTReferencedSeriesSequence"):
                series.add(text(item, "SeriesInstanceUID"))
                instances |= _instances(item, "ContourImageSequence")
    own = {text(roi, "ReferencedFrameOfReferenceUID") for roi in items(dataset, "StructureSetROISequence")} - {""}
    if len(own) > 1:
        raise DicomFault("expected regions in one frame of reference, found several; export one for each")
    told = own or frames - {""}
    return _references(instances, series, told.pop() if len(told) == 1 else "")


def content_time(dataset: Dataset) -> str:
    """Date and time of the content, "YYYYMMDD" and "HHMMSS.ffffff", else of the instance; "" when untold."""
    for kind in ("Content", "StructureSet", "InstanceCreation"):
        date = re.sub(r"\D", "", text(dataset, f"{kind}Date"))
        if len(date) == 8:
            time = re.sub(r"[^\d.]", "", text(dataset, f"{kind}Time"))
            return date + time.partition(".")[0].ljust(6, "0") + "." + time.partition(".")[2]
    return ""


def _instances(item: Dataset, sequence: str) -> set[str]:
    return set(_uids(item, sequence))


def _uids(item: Dataset, sequence: str) -> Iterator[str]:
    for reference in items(item, sequence):
        yield text(reference, "ReferencedSOPInstanceUID")


def _references(instances: set[str], series: set[str], frame_of_reference: str) -> References:
    return References(frozenset(instances - {""}), frozenset(series - {""}), frame_of_reference)
