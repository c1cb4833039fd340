"""Where a voxel is in the body, and how arrays of different files are laid onto one grid.

Terms
- *Voxel axes*. A file holds an array whose three axes are numbered 0, 1, 2 in the order of storage. An index
  (i, j, k) names the centre of a voxel; the voxel reaches from i - 0.5 to i + 0.5. Which way an axis runs through
  the body is the scanner's (or the last program's) choice: there are 48 ways, 6 orders times 8 flips.
- *World*. Millimetres in RAS+: the first coordinate grows to the patient's right, the second to the front, the third
  to the head (NIfTI-1, "3D image orientation and location in space"). Left stays left only if this is respected.
- *Affine*. The (4, 4) matrix that maps (i, j, k, 1) to (x, y, z, 1) in the world. The lengths of its first three
  columns are the spacing, the last column is the centre of voxel (0, 0, 0). A column that runs along no world axis
  exactly makes the grid *oblique*, which is common and welcome.
- *Grid*. An affine and a shape. Two files describe the same grid when the corners of both boxes coincide.
- *Canonical grid*. The one that a Case has. Voxel axes are flipped and permuted, and nothing is interpolated, until
  each runs towards the positive world axis that it is nearest to, in the order right, front, head. A volume with
  thick slices has them last: the axis whose spacing is at least 1.5 times that of both others is the slice axis,
  and the other two follow in the order right, front, head. So sagittal slices give (front, head, right). Where a
  source says along which axis its slices were taken (DICOM, the viewer), that one comes last whatever the spacing.

Invariants
- A reorientation never changes a value and never moves a voxel in the world; `undo(apply(a))` is `a`.
- Slices-last can turn a right-handed grid into a left-handed one; the affine that comes with it says so.
- Two grids are compared by the distance of their corners, never by the numbers of their affines: a tiny rotation
  matters by what it does at the far end of the box.
- Grids are laid onto each other by the signed permutation between *them*, not by rounding each to the world first:
  at 45 degrees the last digit of a file would decide, and differently for image and label.
"""

from dataclasses import dataclass

import numpy as np
from nibabel import orientations

from dafne_dante.errors import GeometryMismatchError, UnreadableImageError
from dafne_dante.types import Affine, SpacingMm, Volume

__all__ = [
    "Reorientation",
    "Shape",
    "affine_fault",
    "canonical_orientation",
    "corner_distance_mm",
    "orientation_between",
    "same_grid",
    "spacing_mm",
]

Shape = tuple[int, int, int]
"""Voxels along three axes."""

_STORED_ORDER = np.array([(0, 1), (1, 1), (2, 1)], dtype=np.float64)  # no permutation, no flip
_THICK = 1.5 * (1 - 1e-3)  # affines are stored as float32: 1.2 mm against 0.8 mm must count as 1.5 times
_TOLERANCE = 0.1  # of the smallest voxel size
_MIN_SPACING_MM, _MAX_SPACING_MM = 1e-3, 1e3
_MAX_ORIGIN_MM = 1e5
_MIN_VOLUME_SHARE = 0.5  # of the box with the same edges; CT gantry tilt (30 degrees) leaves 0.87


@dataclass(frozen=True)
class Reorientation:
    """A permutation and flips of voxel axes, from a file's own axes to others.

    Attributes:
        axes: for each axis of the source the axis that it becomes.
        flips: for each axis of the source 1 or -1, where -1 turns it round.
        shape: voxels along the axes of the source.
    """

    axes: tuple[int, int, int]
    flips: tuple[int, int, int]
    shape: Shape

    def apply(self, array: Volume) -> Volume:
        """The array on the new axes, a view; GeometryMismatchError unless it has the source's shape."""
        return self._turned(array, self.shape, self._pairs())

    def undo(self, array: Volume) -> Volume:
        """The array back on the source's axes, a view; GeometryMismatchError unless it has the new shape."""
        return self._turned(array, self.new_shape, orientations.ornt_transform(_STORED_ORDER, self._pairs()))

    def affine(self, affine: Affine) -> Affine:
        """The affine (4, 4) of the new axes, for the affine of the source."""
        moved: Affine = affine @ orientations.inv_ornt_aff(self._pairs(), self.shape)
        return moved

    @property
    def new_shape(self) -> Shape:
        """Voxels along the new axes."""
        sizes = dict(zip(self.axes, self.shape, strict=True))
        return sizes[0], sizes[1], sizes[2]

    def _pairs(self) -> Volume:
        """(3, 2) as nibabel.orientations wants it."""
        return np.array(list(zip(self.axes, self.flips, strict=True)), dtype=np.float64)

    @staticmethod
    def _turned(array: Volume, shape: Shape, pairs: Volume) -> Volume:
        if array.shape != shape:
            raise GeometryMismatchError(f"expected an array of {shape} voxels, found {array.shape}")
        turned: Volume = orientations.apply_orientation(array, pairs)
        return turned


def spacing_mm(affine: Affine) -> SpacingMm:
    """Millimetres per voxel along the three voxel axes: the lengths of the columns of the affine (4, 4)."""
    first, second, third = np.linalg.norm(affine[:3, :3], axis=0)
    return float(first), float(second), float(third)


def affine_fault(affine: Affine) -> str:
    """What keeps the affine (4, 4) from describing a grid, as "expected X, found Y"; empty when nothing does."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        return "expected an affine (4, 4) of finite numbers, found another"
    if not np.array_equal(affine[3], (0, 0, 0, 1)):
        return "expected an affine whose last row is 0 0 0 1, found another"
    sizes = spacing_mm(affine)
    if not _MIN_SPACING_MM <= min(sizes) <= max(sizes) <= _MAX_SPACING_MM:
        found = " x ".join(f"{size:g}" for size in sizes)
        return f"expected voxels of {_MIN_SPACING_MM:g} to {_MAX_SPACING_MM:g} mm, found {found} mm"
    if abs(np.linalg.det(affine[:3, :3] / np.array(sizes))) < _MIN_VOLUME_SHARE:
        return "expected voxel axes that span a box, found axes that lie in a plane or are heavily sheared"
    if np.abs(affine[:3, 3]).max() > _MAX_ORIGIN_MM:
        return "expected an origin within 100 m of the scanner, found one farther away"
    return ""


def canonical_orientation(affine: Affine, shape: Shape, *, slice_axis: int | None = None) -> Reorientation:
    """The way from the voxel axes of this grid to those of the canonical grid (see above).

    `slice_axis` is the axis (0, 1 or 2) along which the slices were taken, where the source knows it: it comes last
    whatever the spacing, so that what is said of slices can be said of Z.

    Raises:
        UnreadableImageError: the affine (4, 4) is not finite, singular, sheared beyond use or of absurd size.
    """
    if fault := affine_fault(affine):
        raise UnreadableImageError(f"{fault}; export the image again")
    to_ras = _reorientation(orientations.io_orientation(affine), shape)
    thick = _thick_last(spacing_mm(to_ras.affine(affine)))
    order = thick if slice_axis is None else _last(to_ras.axes[slice_axis])
    axes = [order.index(axis) for axis in to_ras.axes]
    return Reorientation((axes[0], axes[1], axes[2]), to_ras.flips, shape)


def orientation_between(affine: Affine, shape: Shape, target: Affine) -> Reorientation:
    """The permutation and flips that bring a grid nearest to the axes of the `target` affine (4, 4).

    Nearest is not near: compare with `same_grid` afterwards. Both affines are free of faults (`affine_fault`).
    """
    return _reorientation(orientations.io_orientation(np.linalg.inv(target) @ affine), shape)


def corner_distance_mm(affine_a: Affine, affine_b: Affine, shape: Shape) -> float:
    """The largest distance in millimetres between the eight outer corners of two boxes of the same shape."""
    corners = np.stack([*np.meshgrid(*[(-0.5, size - 0.5) for size in shape], indexing="ij")]).reshape(3, 8)
    difference = affine_a - affine_b
    apart = difference[:3, :3] @ corners + difference[:3, 3:]
    return float(np.linalg.norm(apart, axis=0).max())


def same_grid(
    affine_a: Affine, shape_a: Shape, affine_b: Affine, shape_b: Shape, *, tolerance_mm: float | None = None
) -> bool:
    """Whether two grids have the same axes, shape and, within the tolerance, the same eight corners.

    `tolerance_mm` is a tenth of the smallest voxel size of the first grid unless it is given.
    """
    if shape_a != shape_b:
        return False
    allowed = _TOLERANCE * min(spacing_mm(affine_a)) if tolerance_mm is None else tolerance_mm
    return corner_distance_mm(affine_a, affine_b, shape_a) < allowed


def _thick_last(spacing: SpacingMm) -> tuple[int, ...]:
    """The order of right, front, head (0, 1, 2) that has thick slices, if there are any, last."""
    for axis in range(3):
        if spacing[axis] >= _THICK * max(spacing[other] for other in range(3) if other != axis):
            return _last(axis)
    return 0, 1, 2


def _last(axis: int) -> tuple[int, ...]:
    """The order of right, front, head (0, 1, 2) that has this axis last and the others as they were."""
    return (*[other for other in range(3) if other != axis], axis)


def _reorientation(pairs: Volume, shape: Shape) -> Reorientation:
    axes = [int(axis) for axis in pairs[:, 0]]
    flips = [int(flip) for flip in pairs[:, 1]]
    return Reorientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]), shape)
