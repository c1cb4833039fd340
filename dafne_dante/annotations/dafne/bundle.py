"""Dafne's bundles: an `.npz` file with an image and what was drawn on it.

    data             (X, Y, Z) intensities; in old files `image`; (X, Y) is one slice
    data2, data3...  further contrasts on the same grid
    mask_<label>     (X, Y, Z) of bool or numbers, 0 outside; one for each label
    affine           (4, 4), voxel index to millimetres; may be missing
    resolution       (3,) or (2,) millimetres per voxel along the axes of `data`; may be missing where affine is there
    annotated        (Z,) bool, our own and optional: which slices somebody labelled
    comment          text, never read

Facts, from reading Dafne 2.1.0a0 (`ui/MuscleSegmentation.py`, loadDirectory and prepare_numpy_bundle) and what it uses
(ormir-pyvoxel 0.0.11, `med_volume.py`; dafne-dicomUtils 0.2.1, `ui/pyDicomView.py`)
- Slices are `data[:, :, k]`: its viewer steps through the last axis, so that is the one along which people label.
- `affine` is in RAS+, column i for axis i of `data`, as in NIfTI. Where it is missing Dafne takes the diagonal of
  `resolution`, so axes 0, 1, 2 of `data` count as right, front, head. That is a convention, not knowledge: Dafne's own
  2D bundles have no affine although their rows run to the back and their columns to the left more often than not.
- Dafne loads intensities rescaled by powers of ten (up to 10: times 100; above 10,000: divided by 10 until they are
  not), and so they are in its bundles.
- What Dafne keeps for its own 3D learning (it has `dice` and `model`) has other axes than its affine, the slices
  without a mask cut out and one of its labels only; it cannot be put back, and is refused.
- "Save masks as a single Numpy file" gives masks without an image, and `orientation` beside them.

Invariants
- Every array is checked before it is trusted (see `npz`), and every one that is used has the shape of the first.
- Labels are sorted by name, and where masks overlap the later label counts, as in stock Dafne.
- A slice without a mask means nothing unless `annotated` says that somebody looked at it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dafne_dante.annotations.dafne.masks import check_finite, drawn_voxels
from dafne_dante.annotations.dafne.npz import Npz, open_npz
from dafne_dante.annotations.geometry import affine_fault, spacing_mm
from dafne_dante.annotations.grid import ImageOnGrid, fill_channel, put_on_grid
from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.files import checked_label
from dafne_dante.annotations.study import EmptySlices, Found, LabelledImage, Left, Study
from dafne_dante.errors import AnnotationError, GeometryMismatchError, StorageError, UnreadableImageError
from dafne_dante.types import Affine, AnnotatedSlices, Volume

__all__ = ["AFFINE", "ANNOTATED", "MASK_PREFIX", "RESOLUTION", "BundleStudy", "contrast_name", "find_bundle_studies"]

MASK_PREFIX = "mask_"
AFFINE = "affine"
RESOLUTION = "resolution"
ANNOTATED = "annotated"

_OLD_NAME = "image"
_CONTRAST = re.compile(r"data(\d{1,4})?")
_OWN_LEARNING = frozenset(("dice", "model"))
_SLICE_AXIS = 2
_NO_AFFINE = "it has no affine: its axes count as right, front, head, and left may be right"


def contrast_name(number: int) -> str:
    """The name of a contrast's array: data, data2, data3 for 0, 1, 2."""
    return f"data{number + 1}" if number else "data"


@dataclass(frozen=True)
class BundleStudy:
    """One bundle; a Study (see `annotations.study`).

    Attributes:
        path: the file.
        contrasts: names of its images, in the order of the channels.
        masks: label to the name of its mask, by label.
    """

    path: Path
    contrasts: tuple[str, ...]
    masks: Mapping[str, str]
    empty_slices: EmptySlices = "unknown"

    @property
    def name(self) -> str:
        """The file's base name without its ending."""
        return self.path.stem

    @property
    def labels(self) -> tuple[str, ...]:
        """By name."""
        return tuple(self.masks)

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self, values: Mapping[str, int]) -> LabelledImage:
        """As `annotations.study.Study.read`.

        Raises:
            UnreadableImageError: the file is damaged, or an array of it is not what it should be.
            GeometryMismatchError: shapes differ, or resolution and affine do.
            UnknownLabelError: a mask has several values.
        """
        with open_npz(self.path) as arrays:
            first = _read_volume(arrays, self.contrasts[0])
            grid = self._read_image(arrays, first)
            segmentation = np.zeros(grid.shape, dtype=np.uint8)
            for label in self.labels:
                if label in values:
                    segmentation[grid.reorientation.apply(self._read_mask(arrays, label, first.shape))] = values[label]
            annotated = _read_annotated(arrays, grid) if ANNOTATED in arrays.names else None
            notes = () if AFFINE in arrays.names else (_NO_AFFINE,)
        return LabelledImage(grid, segmentation, annotated, notes)

    def _read_image(self, arrays: Npz, first: Volume) -> ImageOnGrid:
        affine = _read_affine(arrays)
        grid = put_on_grid(self.path.name, first, affine, contrasts=len(self.contrasts), slice_axis=_SLICE_AXIS)
        for channel, name in enumerate(self.contrasts[1:], start=1):
            further = _read_volume(arrays, name)
            _check_shape(arrays, name, further.shape, first.shape)
            fill_channel(grid.image[channel], grid.reorientation.apply(further), f"{self.path.name}: {name}")
        return grid

    def _read_mask(self, arrays: Npz, label: str, shape: Sequence[int]) -> Volume:
        name = self.masks[label]
        mask = _in_three_axes(arrays.read(name))
        _check_shape(arrays, name, mask.shape, shape)
        return drawn_voxels(mask, f"{self.path.name}: {name}")


def find_bundle_studies(files: Sequence[Path]) -> Found:
    """The bundles among `.npz` files; of each only the table of its arrays is read.

    What is no bundle, or one that cannot be used, is left with the reason.
    """
    studies: list[Study] = []
    left: list[Left] = []
    for path in files:
        try:
            with open_npz(path) as arrays:
                studies.append(_study(path, arrays.names))
        except (AnnotationError, StorageError) as error:
            left.append(Left(path.name, str(error)))
    return Found(tuple(studies), tuple(left))


def _study(path: Path, names: Sequence[str]) -> BundleStudy:
    """The study that these arrays make; AnnotationError when they make none."""
    contrasts = _contrasts(path, names)
    masks: dict[str, str] = {}
    for name in names:
        if name.startswith(MASK_PREFIX):
            masks[checked_label(name.removeprefix(MASK_PREFIX), path.name)] = name
    keys = {label_key(label) for label in masks}
    if len(keys) != sum(name.startswith(MASK_PREFIX) for name in names):
        raise AnnotationError(f"{path.name}: expected one mask a label, found two for one; remove one")
    if not masks:
        raise AnnotationError(f"{path.name}: expected masks mask_<label>, found none; label it and save it again")
    if not {AFFINE, RESOLUTION} & set(names):
        raise AnnotationError(f"{path.name}: expected affine or resolution, found neither; save the bundle again")
    return BundleStudy(path, contrasts, {label: masks[label] for label in sorted(masks)})


def _contrasts(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Names of the images, the first one first; AnnotationError when there is none or one is missing between."""
    if set(names) >= _OWN_LEARNING:
        raise AnnotationError(
            f"{path.name}: expected a whole study, found what Dafne keeps for its own 3D learning, without slices "
            "that had no mask; save the masks as NIfTI"
        )
    found = sorted(int(match[1] or 1) for name in names if (match := _CONTRAST.fullmatch(name)))
    if not found and _OLD_NAME in names:
        return (_OLD_NAME,)
    if not found:
        alone = "masks alone; save a bundle of data and masks" if "orientation" in names else "none; save a bundle"
        raise AnnotationError(f"{path.name}: expected the image in an array data, found {alone} in Dafne")
    if found != list(range(1, len(found) + 1)):
        raise AnnotationError(f"{path.name}: expected contrasts data, data2, data3, ... without gaps, found others")
    return tuple(contrast_name(number) for number in range(len(found)))


def _read_volume(arrays: Npz, name: str) -> Volume:
    """(X, Y, Z), finite."""
    volume = _in_three_axes(arrays.read(name))
    if volume.ndim != 3 or not volume.size:
        raise UnreadableImageError(
            f"{arrays.name}: expected {name} to have three axes of at least one voxel, found {volume.shape}"
        )
    check_finite(volume, f"{arrays.name}: {name}")
    return volume


def _in_three_axes(array: Volume) -> Volume:
    return array[..., np.newaxis] if array.ndim == 2 else array


def _check_shape(arrays: Npz, name: str, found: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(found) != tuple(expected):
        raise GeometryMismatchError(
            f"{arrays.name}: expected {name} to have {_voxels(expected)}, found {_voxels(found)}; save it again"
        )


def _voxels(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) + " voxels"


def _read_affine(arrays: Npz) -> Affine:
    """(4, 4): what the file says, else the diagonal of its resolution."""
    resolution = _read_resolution(arrays) if RESOLUTION in arrays.names else None
    affine: Affine
    if AFFINE in arrays.names:
        affine = arrays.read(AFFINE).astype(np.float64)
    else:
        affine = np.diag([*(() if resolution is None else resolution), 1.0])
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused
        fault = affine_fault(affine)
    if fault:
        raise UnreadableImageError(f"{arrays.name}: {fault}; save it again")
    if resolution is not None and not np.allclose(spacing_mm(affine), resolution, rtol=1e-2, atol=1e-3):
        found, other = (" x ".join(f"{size:.3g}" for size in sizes) for sizes in (resolution, spacing_mm(affine)))
        raise GeometryMismatchError(
            f"{arrays.name}: expected one size of voxels, found {found} mm as resolution and {other} mm as affine; "
            "correct one of them"
        )
    return affine


def _read_resolution(arrays: Npz) -> Affine:
    """(3,) float64; of a single slice it may be (2,), and the slice counts as 1 mm thick, as in Dafne."""
    resolution = arrays.read(RESOLUTION).astype(np.float64)
    if resolution.shape not in ((2,), (3,)):
        raise UnreadableImageError(f"{arrays.name}: expected a resolution of 3 numbers, found {resolution.shape}")
    return np.append(resolution, 1.0)[:3]


def _read_annotated(arrays: Npz, grid: ImageOnGrid) -> AnnotatedSlices:
    """(Z,) bool on the grid: the slices of the file, in the grid's direction."""
    stored = arrays.read(ANNOTATED)
    slices = grid.original_shape[_SLICE_AXIS]
    if stored.shape != (slices,) or stored.dtype != np.bool_:
        raise GeometryMismatchError(
            f"{arrays.name}: expected {ANNOTATED} to be {slices} bools, found {stored.shape} {stored.dtype}"
        )
    annotated: AnnotatedSlices = stored[:: grid.reorientation.flips[_SLICE_AXIS]]
    return np.ascontiguousarray(annotated)
