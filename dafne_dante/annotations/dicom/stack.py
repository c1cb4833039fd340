"""Slices in any order -> one volume: which comes after which, and where they lie.

Terms: the *normal* is the cross product of the directions of a row and of a column; the *height* of a slice is how
far along the normal its first pixel lies; the *step* is the way from one slice's first pixel to the next one's.

Invariants
- Slices are ordered by height, never by file name or instance number, and spaced by their positions, never by the
  thickness that a header claims (PS3.3, C.7.6.2.1.1: SliceThickness says nothing of gaps or overlaps).
- The step is that from the first slice to the last, divided: every slice lies within a tenth of the spacing of where
  that puts it, or the stack is refused. A gap of a whole number of steps is told as missing slices.
- A tilted gantry gives a step that does not run along the normal; the affine says so, and nothing is resampled.
- Slices at one height are duplicates; whether they may be is for the caller, who sees their pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dafne_dante.annotations.dicom.elements import DicomFault
from dafne_dante.annotations.dicom.slices import Slice
from dafne_dante.annotations.geometry import affine_fault
from dafne_dante.errors import GeometryMismatchError
from dafne_dante.types import Affine, Volume

__all__ = ["Stack", "heights_of", "stack_slices"]

_TOLERANCE = 0.1  # of the spacing
_SAME_HEIGHT_MM = 1e-2
_STRAIGHT = 1e-2  # of a unit vector
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Stack:
    """Ordered slices.

    Attributes:
        slices: the one for each K.
        duplicates: K and a further slice at the same place.
        affine: (4, 4) of columns, rows, slices in RAS+.
        notes: what a person should know.
    """

    slices: tuple[Slice, ...]
    duplicates: tuple[tuple[int, Slice], ...]
    affine: Affine
    notes: tuple[str, ...]


def heights_of(slices: Sequence[Slice]) -> Volume:
    """(N,) millimetres along the normal of the first slice; DicomFault when its directions are none."""
    return np.array([one.plane.position for one in slices]) @ _directions(slices[0])[2]


def stack_slices(slices: Sequence[Slice]) -> Stack:
    """Order the slices of one volume.

    Raises:
        DicomFault: directions that are no axes, slices that are missing or lie unevenly, an affine beyond use.
    """
    row, column, normal = _directions(slices[0])
    heights = heights_of(slices)
    kept: list[Slice] = []
    duplicates: list[tuple[int, Slice]] = []
    previous = -np.inf
    for index in np.argsort(heights, kind="stable"):
        if heights[index] - previous < _SAME_HEIGHT_MM:
            duplicates.append((len(kept) - 1, slices[index]))
        else:
            kept.append(slices[index])
            previous = heights[index]
    step, notes = _step(kept, normal)
    between_rows, between_columns = slices[0].plane.spacing_mm
    axes = np.column_stack([row * between_columns, column * between_rows, step])
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ axes
    affine[:3, 3] = _LPS_TO_RAS @ kept[0].plane.position
    if fault := affine_fault(affine):
        raise DicomFault(f"{fault}; export it again", GeometryMismatchError)
    return Stack(tuple(kept), tuple(duplicates), affine, notes)


def _directions(first: Slice) -> tuple[Volume, Volume, Volume]:
    """Unit vectors along a row, along a column, and the normal."""
    row, column = first.plane.along_row, first.plane.along_column
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > _STRAIGHT or abs(lengths[1] - 1) > _STRAIGHT or abs(row @ column) > _STRAIGHT:
        raise DicomFault("expected directions that are perpendicular and of length 1, found others; export it again")
    row = row / lengths[0]
    column = column / lengths[1]
    return row, column, np.cross(row, column)


def _step(kept: Sequence[Slice], normal: Volume) -> tuple[Volume, tuple[str, ...]]:
    """(3,) millimetres from one slice to the next, in LPS+."""
    positions = np.array([one.plane.position for one in kept])
    if len(kept) == 1:
        thickness = kept[0].thickness_mm
        return normal * (thickness or 1.0), ("a single slice; its thickness is what its header claims",)
    heights = positions @ normal
    _check_gaps(np.diff(heights))
    step = (positions[-1] - positions[0]) / (len(kept) - 1)
    apart = np.linalg.norm(positions - positions[0] - np.arange(len(kept))[:, None] * step, axis=1).max()
    spacing = float(np.linalg.norm(step))
    if apart > _TOLERANCE * spacing:
        raise DicomFault(
            f"expected slices {spacing:.3g} mm apart, found one {apart:.2g} mm off its place; export one series",
            GeometryMismatchError,
        )
    return step, ()


def _check_gaps(gaps: Volume) -> None:
    """A DicomFault that counts the missing slices, where steps are multiples of the usual one."""
    usual = float(np.median(gaps))
    missing = np.rint(gaps / usual) - 1
    if (missing > 0).any():
        raise DicomFault(
            f"expected slices {usual:.3g} mm apart, found a gap: {int(missing[missing > 0].sum())} missing in "
            f"{int((missing > 0).sum())} place(s); export the whole series",
            GeometryMismatchError,
        )
