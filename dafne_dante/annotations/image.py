"""Files on one grid: an image with its contrasts, and what was drawn on it.

Invariants: the first contrast decides the grid; every other file must describe the same one, up to the order and
direction of its voxel axes (see `geometry`), and is refused by its name otherwise; nothing is ever resampled here,
and `to_original` gives back the exact voxel order of the first file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dafne_dante.annotations.geometry import (
    Reorientation,
    Shape,
    canonical_orientation,
    corner_distance_mm,
    orientation_between,
    same_grid,
    spacing_mm,
)
from dafne_dante.annotations.nifti import read_volume
from dafne_dante.errors import GeometryMismatchError, UnknownLabelError, UnreadableImageError
from dafne_dante.types import Affine, Image, Segmentation, SpacingMm, Volume

__all__ = ["ImageOnGrid", "read_image", "read_label_values", "read_mask"]

_MAX_CONTRASTS = 16
_ROUNDING = 1e-3  # a label that was stored with a scale factor comes back with this much noise at most


@dataclass(frozen=True, eq=False)
class ImageOnGrid:
    """An image on its canonical grid, and the way back.

    Attributes:
        name: base name of the first file.
        image: (C, X, Y, Z) float32, intensities as stored, finite.
        affine: (4, 4) of the canonical grid.
        reorientation: from the first file's voxel axes to the canonical ones.
        original_affine: (4, 4) of the first file.
    """

    name: str
    image: Image
    affine: Affine
    reorientation: Reorientation
    original_affine: Affine

    @property
    def shape(self) -> Shape:
        """Voxels along the canonical X, Y, Z."""
        return self.reorientation.new_shape

    @property
    def original_shape(self) -> Shape:
        """Voxels along the axes of the first file."""
        return self.reorientation.shape

    @property
    def spacing_mm(self) -> SpacingMm:
        """Millimetres per voxel along the canonical X, Y, Z."""
        return spacing_mm(self.affine)

    def to_original(self, segmentation: Segmentation) -> Segmentation:
        """The segmentation (X, Y, Z) in the first file's own voxel order, to be stored with `original_affine`.

        Raises:
            GeometryMismatchError: it does not have the shape of the canonical grid.
        """
        return np.ascontiguousarray(self.reorientation.undo(segmentation))


def read_image(paths: Sequence[Path]) -> ImageOnGrid:
    """Read one image from one NIfTI file a contrast, in the order of the channels.

    Raises:
        UnreadableImageError: no file, too many, or one that `nifti.read_volume` refuses.
        GeometryMismatchError: a further contrast does not describe the grid of the first.
    """
    if not 1 <= len(paths) <= _MAX_CONTRASTS:
        raise UnreadableImageError(f"expected 1 to {_MAX_CONTRASTS} contrasts of an image, found {len(paths)}")
    volume, affine = read_volume(paths[0])
    reorientation = canonical_orientation(affine, _shape(volume))
    image = np.empty((len(paths), *reorientation.new_shape), dtype=np.float32)
    grid = ImageOnGrid(paths[0].name, image, reorientation.affine(affine), reorientation, affine)
    _fill(image[0], reorientation.apply(volume), paths[0])
    for channel, path in enumerate(paths[1:], start=1):
        _fill(image[channel], _read_onto(path, grid), path)
    return grid


def read_label_values(path: Path, grid: ImageOnGrid) -> Segmentation:
    """The values (X, Y, Z) uint8 of a label map on the grid of an image, as the file has them.

    Raises:
        UnreadableImageError, GeometryMismatchError: as for a contrast.
        UnknownLabelError: a value that is not a whole number from 0 to 255.
    """
    volume = _read_onto(path, grid)
    whole = np.rint(volume) if volume.dtype.kind == "f" else volume
    wrong = (whole < 0) | (whole > 255) | (np.abs(volume - whole) > _ROUNDING)
    if wrong.any():
        raise UnknownLabelError(
            f"{path.name}: expected label values that are whole numbers from 0 to 255, "
            f"found {float(volume[wrong].flat[0]):g}"
        )
    return np.ascontiguousarray(whole, dtype=np.uint8)


def read_mask(path: Path, grid: ImageOnGrid) -> Volume:
    """The mask (X, Y, Z) bool of one label on the grid of an image: True where the file is not 0.

    Raises:
        UnreadableImageError, GeometryMismatchError: as for a contrast.
        UnknownLabelError: values as for a label map, or more than one beside 0: then the file is a label map.
    """
    values = read_label_values(path, grid)
    mask: Volume = values > 0
    highest = int(values.max())
    if not ((values == highest) | ~mask).all():
        raise UnknownLabelError(
            f"{path.name}: expected a mask with one value beside 0, found several; "
            "write one mask a label, or use the nnU-Net layout for label maps"
        )
    return mask


def _read_onto(path: Path, grid: ImageOnGrid) -> Volume:
    """The file's voxels on the axes of the grid; GeometryMismatchError when it describes another one."""
    volume, affine = read_volume(path)
    onto = orientation_between(affine, _shape(volume), grid.affine)
    moved = onto.affine(affine)
    if not same_grid(grid.affine, grid.shape, moved, onto.new_shape):
        raise GeometryMismatchError(
            f"{path.name}: expected the grid of {grid.name}, found {_difference(grid, onto.new_shape, moved)}; "
            "export both from the same image"
        )
    return onto.apply(volume)


def _difference(grid: ImageOnGrid, shape: Shape, affine: Affine) -> str:
    """The most telling way in which a grid differs from that of the image, in words."""
    if shape != grid.shape:
        return f"{' x '.join(map(str, shape))} voxels instead of {' x '.join(map(str, grid.shape))}"
    found, expected = spacing_mm(affine), spacing_mm(grid.affine)
    if not np.allclose(found, expected, rtol=1e-2):
        return f"voxels of {_sizes(found)} instead of {_sizes(expected)}"
    return f"a box that lies {corner_distance_mm(grid.affine, affine, shape):.3g} mm away"


def _sizes(spacing: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in spacing) + " mm"


def _fill(channel: Volume, volume: Volume, path: Path) -> None:
    """Copy intensities into a channel (X, Y, Z) float32; what does not fit its range is refused, not cut off."""
    with np.errstate(over="ignore"):
        channel[...] = volume
    if not np.isfinite(channel).all():
        raise UnreadableImageError(f"{path.name}: expected intensities below 3e38, found greater ones; rescale it")


def _shape(volume: Volume) -> Shape:
    return volume.shape[0], volume.shape[1], volume.shape[2]
