"""An image on one grid, and how further arrays are laid onto it.

Terms: the *first contrast* decides the grid; its own voxel order is the *original* one. See `geometry` for the rest.

Invariants: every further array must describe the same grid, up to the order and direction of its voxel axes, and is
refused by its name otherwise; nothing is ever resampled here, and `to_original` gives back the exact voxel order of
the first contrast.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
from dafne_dante.errors import GeometryMismatchError, UnreadableImageError
from dafne_dante.types import Affine, Image, Segmentation, SpacingMm, Volume

__all__ = ["MAX_CONTRASTS", "ImageOnGrid", "fill_channel", "lay_onto", "put_on_grid"]

MAX_CONTRASTS = 16


@dataclass(frozen=True, eq=False)
class ImageOnGrid:
    """An image on its canonical grid, and the way back.

    Attributes:
        name: what messages call it: the base name of its first file, or its place among others.
        image: (C, X, Y, Z) float32, intensities as stored, finite.
        affine: (4, 4) of the canonical grid.
        reorientation: from the original voxel axes to the canonical ones.
        original_affine: (4, 4) of the original voxel axes.
        notes: what a person should know of the files, each a sentence.
    """

    name: str
    image: Image
    affine: Affine
    reorientation: Reorientation
    original_affine: Affine
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """Voxels along the canonical X, Y, Z."""
        return self.reorientation.new_shape

    @property
    def original_shape(self) -> Shape:
        """Voxels along the original axes."""
        return self.reorientation.shape

    @property
    def spacing_mm(self) -> SpacingMm:
        """Millimetres per voxel along the canonical X, Y, Z."""
        return spacing_mm(self.affine)

    def to_original(self, segmentation: Segmentation) -> Segmentation:
        """The segmentation (X, Y, Z) in the original voxel order, to be stored with `original_affine`.

        Raises:
            GeometryMismatchError: it does not have the shape of the canonical grid.
        """
        return np.ascontiguousarray(self.reorientation.undo(segmentation))


def put_on_grid(
    name: str, volume: Volume, affine: Affine, *, contrasts: int = 1, slice_axis: int | None = None
) -> ImageOnGrid:
    """The volume, in its own voxel order, as the first of an image's contrasts; the others are zero until filled.

    Args:
        name: for messages.
        volume: (I, J, K) of real numbers.
        affine: (4, 4) of its voxel axes.
        contrasts: how many channels the image gets, 1 to 16.
        slice_axis: the axis (0, 1 or 2) of the volume along which its slices were taken, where the source says so;
            it becomes Z whatever the spacing.

    Raises:
        UnreadableImageError: too many contrasts, a useless affine, or intensities beyond float32.
    """
    if not 1 <= contrasts <= MAX_CONTRASTS:
        raise UnreadableImageError(f"expected 1 to {MAX_CONTRASTS} contrasts of an image, found {contrasts}")
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    reorientation = canonical_orientation(affine, shape, slice_axis=slice_axis)
    image = np.zeros((contrasts, *reorientation.new_shape), dtype=np.float32)
    grid = ImageOnGrid(name, image, reorientation.affine(affine), reorientation, affine)
    fill_channel(image[0], reorientation.apply(volume), name)
    return grid


def lay_onto(name: str, volume: Volume, affine: Affine, grid: ImageOnGrid) -> Volume:
    """The volume's voxels on the axes of the grid, a view.

    Raises:
        GeometryMismatchError: the volume describes another grid; the message says in what they differ.
    """
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    onto = orientation_between(affine, shape, grid.affine)
    moved = onto.affine(affine)
    if not same_grid(grid.affine, grid.shape, moved, onto.new_shape):
        raise GeometryMismatchError(
            f"{name}: expected the grid of {grid.name}, found {_difference(grid, onto.new_shape, moved)}; "
            "export both from the same image"
        )
    return onto.apply(volume)


def fill_channel(channel: Volume, volume: Volume, name: str) -> None:
    """Copy intensities into a channel (X, Y, Z) float32; what does not fit its range is refused, not cut off."""
    with np.errstate(over="ignore"):
        channel[...] = volume
    if not np.isfinite(channel).all():
        raise UnreadableImageError(f"{name}: expected intensities below 3e38, found greater ones; rescale it")


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
