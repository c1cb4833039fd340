"""Where a plane of pixels lies among the voxels of an image.

Terms
- The *lattice* is an image's stored grid: columns, rows, slices (I, J, K), and its affine in RAS+.
- A *plane* is a frame of pixels with its position, directions and spacing in the patient, as DICOM writes them
  (PS3.3, C.7.6.2.1.1; millimetres in LPS+: the first two coordinates of the world are turned round).
- Its *place* says which voxels of the lattice its pixels are.

Invariants
- A plane has a place only if every one of its pixels is a voxel of the lattice, and it covers one whole slice along
  one of the three voxel axes; its axes may be exchanged and turned round, which happens when the program that drew
  it stores its pixels in another order. Nothing is resampled, and no index or instance number is believed.
- The four corners of a plane lie within a tenth of a voxel, along each voxel axis, of where the lattice has them.
"""

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from dafne_dante.annotations.dicom.elements import DicomFault, numbers
from dafne_dante.annotations.geometry import Shape, affine_fault, spacing_mm
from dafne_dante.errors import GeometryMismatchError
from dafne_dante.types import Affine, Volume

__all__ = ["Lattice", "Place", "Plane", "place_plane", "read_plane", "to_indices"]

_TOLERANCE = 0.1  # of a voxel
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_STRAIGHT = 0.02  # of a step: what a plane is called turned, rather than displaced, from


@dataclass(frozen=True, eq=False)
class Lattice:
    """An image's stored grid: `affine` (4, 4) in RAS+ of the voxel axes columns, rows, slices; `shape` (I, J, K)."""

    affine: Affine
    shape: Shape


@dataclass(frozen=True, eq=False)
class Plane:
    """One frame in the patient, all in LPS+.

    Attributes:
        position: (3,) millimetres, centre of the first pixel.
        along_row: (3,) unit vector, the way that the column index grows.
        along_column: (3,) unit vector, the way that the row index grows.
        spacing_mm: between rows, between columns.
        shape: rows, columns.
    """

    position: Volume
    along_row: Volume
    along_column: Volume
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]


@dataclass(frozen=True)
class Place:
    """Which voxels the pixels of a plane are.

    Attributes:
        slice_axis: the voxel axis (0, 1, 2) that the plane is across.
        index: the voxel index along that axis.
        exchanged: whether rows run along the earlier of the two other axes.
        flipped: for each of the two other axes, in order, whether the plane runs against it.
    """

    slice_axis: int
    index: int
    exchanged: bool
    flipped: tuple[bool, bool]

    def oriented(self, frame: Volume) -> Volume:
        """The frame (rows, columns) along the two other voxel axes of the lattice in their order, a view."""
        turned = frame if self.exchanged else frame.T
        return turned[:: -1 if self.flipped[0] else 1, :: -1 if self.flipped[1] else 1]

    def slice_of(self, volume: Volume) -> Volume:
        """The slice of a volume (I, J, K) that the plane lies in, a view."""
        where: list[slice | int] = [slice(None)] * 3
        where[self.slice_axis] = self.index
        return volume[tuple(where)]


def read_plane(position_in: Dataset, directions_in: Dataset, spacing_in: Dataset, shape: tuple[int, int]) -> Plane:
    """The plane whose elements are in these (parts of) objects; `shape` is rows, columns. DicomFault over bad ones."""
    position = numbers(position_in, "ImagePositionPatient", 3)
    directions = numbers(directions_in, "ImageOrientationPatient", 6)
    between_rows, between_columns = numbers(spacing_in, "PixelSpacing", 2)
    return Plane(position, directions[:3], directions[3:], (float(between_rows), float(between_columns)), shape)


def to_indices(lattice: Lattice, points_lps: Volume) -> Volume:
    """Points (N, 3) in millimetres LPS+ as fractional voxel indices (N, 3)."""
    inverse = np.linalg.inv(lattice.affine)
    indices: Volume = points_lps @ (inverse[:3, :3] @ _LPS_TO_RAS).T + inverse[:3, 3]
    return indices


def place_plane(lattice: Lattice, plane: Plane) -> Place:
    """The place of a plane in the lattice.

    Raises:
        DicomFault: it has none (a GeometryMismatchError); the words say in what they differ.
    """
    first, steps = _in_voxels(lattice, plane)
    column_axis, row_axis = (int(np.abs(step).argmax()) for step in steps)
    unit = np.zeros((2, 3))
    unit[0, column_axis], unit[1, row_axis] = np.sign(steps[0, column_axis]), np.sign(steps[1, row_axis])
    if column_axis == row_axis or (np.abs(steps - steps * np.abs(unit)) > _STRAIGHT).any():
        raise _refused("planes that are turned against its slices", lattice)
    rows, columns = plane.shape
    if not _within(steps - unit, (columns, rows)):
        raise _refused(f"pixels of {_sizes(_pixel_sizes(lattice, steps))}", lattice)
    if (columns, rows) != (lattice.shape[column_axis], lattice.shape[row_axis]):
        raise _refused(f"planes of {columns} x {rows} pixels", lattice)
    start = np.where(unit.sum(axis=0) < 0, np.array(lattice.shape) - 1, 0).astype(np.float64)
    slice_axis = 3 - column_axis - row_axis
    start[slice_axis] = np.rint(first[slice_axis])
    _check_corners(lattice, first - start, steps - unit, plane.shape)
    index = int(start[slice_axis])
    if not 0 <= index < lattice.shape[slice_axis]:
        raise _refused(f"a plane {_beyond(index, lattice.shape[slice_axis])} slices beyond its end", lattice)
    signs = [bool(unit[:, axis].sum() < 0) for axis in range(3) if axis != slice_axis]
    return Place(slice_axis, index, row_axis < column_axis, (signs[0], signs[1]))


def _in_voxels(lattice: Lattice, plane: Plane) -> tuple[Volume, Volume]:
    """(3,) index of the first pixel, and (2, 3) what a step to the next column and to the next row is in voxels."""
    if fault := affine_fault(lattice.affine):
        raise DicomFault(f"the image: {fault}; export it again", GeometryMismatchError)
    step_mm = np.stack([plane.along_row * plane.spacing_mm[1], plane.along_column * plane.spacing_mm[0]])
    indices = to_indices(lattice, np.vstack([plane.position, plane.position + step_mm]))
    return indices[0], indices[1:] - indices[0]


def _check_corners(lattice: Lattice, offset: Volume, stretch: Volume, shape: tuple[int, int]) -> None:
    """`offset` (3,) of the first pixel and `stretch` (2, 3) of each step, in voxels, against the lattice."""
    rows, columns = shape
    corners = [offset + column * stretch[0] + row * stretch[1] for column in (0, columns - 1) for row in (0, rows - 1)]
    if np.abs(corners).max() > _TOLERANCE:
        apart = np.abs(np.stack(corners)) @ np.diag(spacing_mm(lattice.affine))
        raise _refused(f"a plane that lies {float(apart.max()):.3g} mm off its voxels", lattice)


def _within(stretch: Volume, sizes: tuple[int, int]) -> bool:
    """Whether steps (2, 3) that are off by `stretch` stay within a voxel over the whole plane."""
    return bool((np.abs(stretch).max(axis=1) * np.array(sizes) < 1).all())


def _pixel_sizes(lattice: Lattice, steps: Volume) -> tuple[float, float]:
    lengths = np.linalg.norm(steps @ lattice.affine[:3, :3].T, axis=1)
    return float(lengths[0]), float(lengths[1])


def _beyond(index: int, size: int) -> int:
    return -index if index < 0 else index - size + 1


def _refused(found: str, lattice: Lattice) -> DicomFault:
    voxels = " x ".join(map(str, lattice.shape))
    return DicomFault(
        f"expected planes on the image's grid of {voxels} voxels of {_sizes(spacing_mm(lattice.affine))}, "
        f"found {found}; export the labels on the grid of the image",
        GeometryMismatchError,
    )


def _sizes(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes) + " mm"
