"""NIfTI files on one grid: an image with its contrasts, and what was drawn on it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dafne_dante.annotations.grid import MAX_CONTRASTS, ImageOnGrid, fill_channel, lay_onto, put_on_grid
from dafne_dante.annotations.nifti.volume import read_volume
from dafne_dante.errors import UnknownLabelError, UnreadableImageError
from dafne_dante.types import Segmentation, Volume

__all__ = ["read_image", "read_label_values", "read_mask"]

_ROUNDING = 1e-3  # a label that was stored with a scale factor comes back with this much noise at most


def read_image(paths: Sequence[Path]) -> ImageOnGrid:
    """Read one image from one NIfTI file a contrast, in the order of the channels.

    Raises:
        UnreadableImageError: no file, too many, or one that `volume.read_volume` refuses.
        GeometryMismatchError: a further contrast does not describe the grid of the first.
    """
    if not paths:
        raise UnreadableImageError(f"expected 1 to {MAX_CONTRASTS} contrasts of an image, found 0")
    volume, affine = read_volume(paths[0])
    grid = put_on_grid(paths[0].name, volume, affine, contrasts=len(paths))
    for channel, path in enumerate(paths[1:], start=1):
        fill_channel(grid.image[channel], _read_onto(path, grid), path.name)
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
    return lay_onto(path.name, volume, affine, grid)
