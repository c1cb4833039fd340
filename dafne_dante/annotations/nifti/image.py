"""NIfTI files on one grid: an image with its contrasts, and what was drawn on it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dafne_dante.annotations.grid import MAX_CONTRASTS, ImageOnGrid, fill_channel, lay_onto, put_on_grid
from dafne_dante.annotations.nifti.volume import NiftiFile, read_volume, read_volumes
from dafne_dante.errors import UnknownLabelError, UnreadableImageError
from dafne_dante.types import Segmentation, Volume

__all__ = ["read_image", "read_label_values", "read_mask"]

_ROUNDING = 1e-3  # a label that was stored with a scale factor comes back with this much noise at most
_HALF = 0.5


def read_image(paths: Sequence[Path], *, volumes: int = 1, slice_axis: int | None = None) -> ImageOnGrid:
    """Read one image from one NIfTI file a contrast, in the order of the channels, or all of them from one.

    Args:
        paths: the files.
        volumes: how many contrasts each file holds along its fourth axis; more than 1 for a single file only.
        slice_axis: the first file's axis along which slices were taken, where somebody says so.

    Raises:
        UnreadableImageError: no file, too many, or one that `volume.read_volumes` refuses.
        GeometryMismatchError: a further contrast does not describe the grid of the first.
    """
    if not paths or (len(paths) > 1 and volumes > 1):
        raise UnreadableImageError(f"expected 1 to {MAX_CONTRASTS} contrasts of an image, found {len(paths)} files")
    first = read_volumes(paths[0], volumes)
    grid = put_on_grid(
        paths[0].name, first.volumes[0], first.affine, contrasts=len(paths) * volumes, slice_axis=slice_axis
    )
    notes = _named(paths[0], first)
    for channel, volume in enumerate(first.volumes[1:], start=1):
        fill_channel(grid.image[channel], grid.reorientation.apply(volume), paths[0].name)
    for channel, path in enumerate(paths[1:], start=1):
        further = read_volumes(path)
        notes += _named(path, further)
        fill_channel(grid.image[channel], lay_onto(path.name, further.volumes[0], further.affine, grid), path.name)
    return replace(grid, notes=notes)


def read_label_values(path: Path, grid: ImageOnGrid) -> Segmentation:
    """The values (X, Y, Z) uint8 of a label map on the grid of an image, as the file has them.

    Raises:
        UnreadableImageError, GeometryMismatchError: as for a contrast.
        UnknownLabelError: a value that is not a whole number from 0 to 255.
    """
    return _whole_values(path, _read_onto(path, grid))


def _whole_values(path: Path, volume: Volume) -> Segmentation:
    whole = np.rint(volume) if volume.dtype.kind == "f" else volume
    wrong = (whole < 0) | (whole > 255) | (np.abs(volume - whole) > _ROUNDING)
    if wrong.any():
        raise UnknownLabelError(
            f"{path.name}: expected label values that are whole numbers from 0 to 255, "
            f"found {float(volume[wrong].flat[0]):g}"
        )
    return np.ascontiguousarray(whole, dtype=np.uint8)


def read_mask(path: Path, grid: ImageOnGrid) -> tuple[Volume, tuple[str, ...]]:
    """The mask (X, Y, Z) bool of one label on the grid of an image, and what a person should know of it.

    True where the file is not 0; where it holds fractions from 0 to 1, as probabilities or a resampled mask do, where
    at least one half is.

    Raises:
        UnreadableImageError, GeometryMismatchError: as for a contrast.
        UnknownLabelError: values as for a label map, or more than one beside 0: then the file is a label map.
    """
    volume = _read_onto(path, grid)
    if _are_fractions(volume):
        return volume >= _HALF, (f"{path.name}: fractions count from one half",)
    values = _whole_values(path, volume)
    mask: Volume = values > 0
    highest = int(values.max())
    if not ((values == highest) | ~mask).all():
        raise UnknownLabelError(
            f"{path.name}: expected a mask with one value beside 0, found several; "
            "write one mask a label, or use the nnU-Net layout for label maps"
        )
    return mask, ()


def _are_fractions(volume: Volume) -> bool:
    """Whether it holds numbers between 0 and 1, and none beyond."""
    if volume.dtype.kind != "f" or volume.min() < -_ROUNDING or volume.max() > 1 + _ROUNDING:
        return False
    return bool((np.abs(volume - np.rint(volume)) > _ROUNDING).any())


def _named(path: Path, found: NiftiFile) -> tuple[str, ...]:
    return tuple(f"{path.name}: {note}" for note in found.notes)


def _read_onto(path: Path, grid: ImageOnGrid) -> Volume:
    """The file's voxels on the axes of the grid; GeometryMismatchError when it describes another one."""
    volume, affine = read_volume(path)
    return lay_onto(path.name, volume, affine, grid)
