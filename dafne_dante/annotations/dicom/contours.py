"""Structure sets (RTSTRUCT): regions of interest as contours in the patient (PS3.3, C.8.8.5 and C.8.8.6).

Terms: a *region* has a number, a name and contours; a *contour* is a list of points, and the closed planar ones are
borders of areas. `ROIName` is the label; a region without one is called "ROI <number>".

Invariants
- A contour belongs to the slice whose plane it lies in, whatever image instance it says: its points lie, on average,
  within a quarter of the slice spacing of that plane, and spread over a tenth of the spacing at most. What lies
  between two slices, or across them, is refused, because to move it would be to draw something else.
- No point lies more than half a voxel outside the image.
- A voxel belongs to a region when its centre is inside by the even-odd rule over all closed contours of that region
  in that slice (see `even_odd`): the rule of CLOSEDPLANAR_XOR, and of keyhole contours. A hole drawn as a contour of
  its own is a hole for CLOSED_PLANAR, too, as treatment planning systems write it.
- Points and open contours, and closed ones of less than three points, enclose nothing; they are left with a note.
- Regions of one name are one label, each filled on its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from dafne_dante.annotations.dicom.elements import (
    DicomFault,
    check_still_there,
    has_element,
    items,
    label_text,
    numbers,
    read_object,
    text,
    told_of,
    whole_number,
)
from dafne_dante.annotations.dicom.even_odd import MAX_CROSSINGS, count_crossings, fill_even_odd
from dafne_dante.annotations.dicom.planes import Lattice, to_indices
from dafne_dante.annotations.dicom.referenced import References, content_time, structure_references
from dafne_dante.annotations.study import EmptySlices
from dafne_dante.errors import GeometryMismatchError
from dafne_dante.types import Volume

__all__ = ["STRUCTURE_SET_CLASS", "StructureSet", "describe_structure_set"]

STRUCTURE_SET_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
"""SOP class of RT Structure Set Storage."""

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_OPEN = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
_MAX_OFF_PLANE = 0.25  # of the slice spacing
_MAX_SPREAD = 0.1  # of the slice spacing
_MAX_OUTSIDE = 0.5  # of a voxel
_MAX_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class StructureSet:
    """One RTSTRUCT that was found; a LabelObject (see `referenced`)."""

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
        """As `LabelObject.draw`."""
        with told_of(self.name):
            dataset = read_object(self.path, pixels=False)
            names = _region_names(dataset)
            check_still_there(ranks, names.values())
            left = 0
            for region, contours in _regions(dataset, names):
                closed = [points for points in contours if points is not None]
                left += len(contours) - len(closed)
                label = names[region]
                slices = _by_slice(lattice, closed, label)
                if label in ranks:
                    _fill(slices, ranks[label], lattice, onto)
        return (f"{self.name}: {left} points or open contours enclose nothing and were left",) if left else ()


def describe_structure_set(path: Path, header: Dataset) -> StructureSet:
    """The regions with closed contours of a structure set that was read.

    Raises:
        UnreadableImageError: it is damaged, or has no closed contour.
        AnnotationError: a region has no proper name.
    """
    with told_of(path.name):
        names = _region_names(header)
        drawn = {names[region] for region, contours in _regions(header, names) if any(p is not None for p in contours)}
        labels = tuple(name for name in dict.fromkeys(names.values()) if name in drawn)
        if not labels:
            raise DicomFault("expected at least one region with a closed contour, found none; draw one")
        return StructureSet(path, labels, structure_references(header), content_time(header))


def _region_names(dataset: Dataset) -> dict[int, str]:
    """Number to name, in the order of the file."""
    names: dict[int, str] = {}
    for item in items(dataset, "StructureSetROISequence"):
        number = whole_number(item, "ROINumber", 0, _MAX_NUMBER)
        if number in names:
            raise DicomFault("expected a number of its own for every region, found one twice; export it again")
        names[number] = label_text(item, "ROIName") if text(item, "ROIName") else f"ROI {number}"
    return names


def _regions(dataset: Dataset, names: Mapping[int, str]) -> Iterator[tuple[int, list[Volume | None]]]:
    """Each region's number with its contours: (N, 3) millimetres LPS+, or None for one that encloses nothing."""
    seen: set[int] = set()
    for item in items(dataset, "ROIContourSequence"):
        number = whole_number(item, "ReferencedROINumber", 0, _MAX_NUMBER)
        if number not in names or number in seen:
            raise DicomFault("expected the contours of each declared region once, found others; export it again")
        seen.add(number)
        yield number, [_points(contour, names[number]) for contour in items(item, "ContourSequence")]


def _points(contour: Dataset, label: str) -> Volume | None:
    kind = text(contour, "ContourGeometricType")
    if kind not in _CLOSED + _OPEN:
        raise DicomFault(f"{label}: expected a contour that is closed, open or a point, found another; export it again")
    if kind in _OPEN:
        return None
    if has_element(contour, "ContourOffsetVector") and numbers(contour, "ContourOffsetVector", 3).any():
        raise DicomFault(f"{label}: expected contours without an offset, found one; export it again")
    values = numbers(contour, "ContourData")
    if len(values) % 3:
        raise DicomFault(f"{label}: expected three numbers a point, found {len(values)} in all; export it again")
    return values.reshape(-1, 3) if len(values) >= 9 else None


def _by_slice(lattice: Lattice, contours: list[Volume], label: str) -> dict[int, list[Volume]]:
    """The contours of one region in each slice, (N, 2) fractional indices along I and J."""
    found: dict[int, list[Volume]] = {}
    for points in contours:
        indices = to_indices(lattice, points)
        across = indices[:, 2]
        index = int(np.clip(np.rint(across.mean()), -1, lattice.shape[2]))
        if np.ptp(across) > _MAX_SPREAD:
            raise _refused(label, "a contour that is not parallel to them", "draw it on the slices of the image")
        if not 0 <= index < lattice.shape[2] or _outside(indices[:, :2], lattice) > _MAX_OUTSIDE:
            raise _refused(label, "a contour outside of the image", "export it with the image that it was drawn on")
        if abs(across.mean() - index) > _MAX_OFF_PLANE:
            share = f"{abs(across.mean() - index):.2g}"
            raise _refused(label, f"a contour {share} of the spacing away", "draw it on the slices of the image")
        found.setdefault(index, []).append(indices[:, :2])
    return found


def _outside(indices: Volume, lattice: Lattice) -> float:
    """How many voxels the farthest point lies outside the image's box; negative when all are inside."""
    sizes = np.array(lattice.shape[:2])
    return float(np.maximum(-0.5 - indices, indices - (sizes - 0.5)).max())


def _fill(slices: Mapping[int, list[Volume]], rank: int, lattice: Lattice, onto: Volume) -> None:
    columns, rows, _ = lattice.shape
    for index, polygons in slices.items():
        if count_crossings(polygons, rows) > MAX_CROSSINGS:
            raise DicomFault("expected contours that a person can have drawn, found absurdly long ones")
        inside = fill_even_odd(polygons, (columns, rows))
        np.maximum(onto[..., index], inside * np.uint16(rank), out=onto[..., index])


def _refused(label: str, found: str, advice: str) -> DicomFault:
    return DicomFault(
        f"{label}: expected contours in the slices of the image, found {found}; {advice}", GeometryMismatchError
    )
