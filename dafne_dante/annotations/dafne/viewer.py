"""What Dafne's viewer holds at this moment, as a study without files.

Facts, from reading Dafne 2.1.0a0 (`ui/MuscleSegmentation.py`, `utils/ROIManager.py`): the image is
`medical_volume.volume` (X, Y, Z) with `affine` (4, 4) in RAS+, and slices are `volume[:, :, k]`. What is drawn is kept
slice by slice: `roiManager.contains(label, k)` says whether there is anything, `get_mask(label, k)` gives (X, Y) of 0
and 1, of uint8 or float64. So a mask may be given as slices, which need not be stacked before.

Invariants
- All that is given is copied when the study is made: the viewer goes on editing, and training reads later, in another
  thread. Masks are kept as bits, empty slices not at all.
- What was drawn on slices that are not annotated is left out: it is what a model proposed and nobody looked at.
- There is no name of a file, a patient or a folder in it unless the caller gives one.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dafne_dante.annotations.dafne.masks import check_finite, drawn_voxels, is_real
from dafne_dante.annotations.geometry import affine_fault
from dafne_dante.annotations.grid import MAX_CONTRASTS, ImageOnGrid, fill_channel, put_on_grid
from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.files import checked_label
from dafne_dante.annotations.study import EmptySlices, LabelledImage
from dafne_dante.errors import AnnotationError, GeometryMismatchError, UnreadableImageError
from dafne_dante.types import Affine, Image, Volume

__all__ = ["DrawnMask", "ViewerStudy"]

DrawnMask = Volume | Mapping[int, Volume]
"""A mask (X, Y, Z), or the index of a slice to its mask with two axes."""

_Packed = dict[int, npt.NDArray[np.uint8]]
"""Index of a slice to its mask, one bit for each voxel."""


class ViewerStudy:
    """The image in the viewer and what is drawn on it; a Study (see `annotations.study`).

    Args:
        name: what messages call it.
        volume: (X, Y, Z) intensities, or several contrasts (C, X, Y, Z) on one grid.
        affine: (4, 4) of X, Y, Z in RAS+.
        masks: for each label its mask, or its masks on single slices.
        annotated: indices of the slices that somebody labelled or looked at; None for those with a mask.
        slice_axis: which of X, Y, Z (0, 1, 2) runs through the slices.

    Raises:
        AnnotationError: names of labels that are none or alike, slices that are not there, or nothing annotated.
        GeometryMismatchError: a mask has another shape than the image.
        UnknownLabelError: a mask has several values beside 0.
        UnreadableImageError: the image or the affine cannot be used.
    """

    def __init__(
        self,
        name: str,
        volume: Volume,
        affine: Affine,
        masks: Mapping[str, DrawnMask],
        *,
        annotated: Collection[int] | None = None,
        slice_axis: int = 2,
    ) -> None:
        self._name = name
        self._slice_axis = slice_axis
        if slice_axis not in (0, 1, 2):
            raise AnnotationError(f"{name}: expected slices along axis 0, 1 or 2, found {slice_axis}")
        self._contrasts = _copied_image(volume, name)
        self._affine = _copied_affine(affine, name)
        shape = self._contrasts.shape[1:]
        self._slices = shape[slice_axis]
        self._slice_shape = (*shape[:slice_axis], *shape[slice_axis + 1 :])
        if annotated is not None:
            _check_slices(annotated, self._slices, name)
        self._annotated = None if annotated is None else frozenset(map(int, annotated))
        named = _checked_labels(masks, name)
        self._masks = {label: self._packed(label, masks[given]) for label, given in sorted(named.items())}

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def labels(self) -> tuple[str, ...]:
        """By name."""
        return tuple(self._masks)

    @property
    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    @property
    def empty_slices(self) -> EmptySlices:
        """Nobody has looked at them, as far as is known."""
        return "unknown"

    def read(self, values: Mapping[str, int]) -> LabelledImage:
        """As `annotations.study.Study.read`; UnreadableImageError for an image that is not finite."""
        grid = self._on_grid()
        drawn = np.zeros(grid.original_shape, dtype=np.uint8)
        by_slice = np.moveaxis(drawn, self._slice_axis, 0)
        left_out: set[int] = set()
        for label, packed in self._masks.items():
            if label in values:
                for index, bits in packed.items():
                    if self._annotated is None or index in self._annotated:
                        by_slice[index][self._unpacked(bits)] = values[label]
                    else:
                        left_out.add(index)
        segmentation = np.ascontiguousarray(grid.reorientation.apply(drawn))
        notes = (f"left out what is drawn on {len(left_out)} slices that nobody marked as labelled",)
        return LabelledImage(grid, segmentation, self._annotated_on(grid), notes if left_out else ())

    def _on_grid(self) -> ImageOnGrid:
        check_finite(self._contrasts, self._name)
        first, count = self._contrasts[0], len(self._contrasts)
        grid = put_on_grid(self._name, first, self._affine, contrasts=count, slice_axis=self._slice_axis)
        for channel in range(1, count):
            fill_channel(grid.image[channel], grid.reorientation.apply(self._contrasts[channel]), self._name)
        return grid

    def _annotated_on(self, grid: ImageOnGrid) -> npt.NDArray[np.bool_] | None:
        """(Z,) bool in the grid's direction; None where it is not known."""
        if self._annotated is None:
            return None
        annotated = np.zeros(self._slices, dtype=np.bool_)
        annotated[list(self._annotated)] = True
        return np.ascontiguousarray(annotated[:: grid.reorientation.flips[self._slice_axis]])

    def _packed(self, label: str, mask: DrawnMask) -> _Packed:
        packed: _Packed = {}
        for index, drawn in self._slices_of(label, mask):
            if drawn.shape != self._slice_shape:
                raise GeometryMismatchError(
                    f"{self._name}: expected {label} to have slices of {self._slice_shape} voxels, found {drawn.shape}"
                )
            voxels = drawn_voxels(drawn, f"{self._name}: {label}")
            if voxels.any():
                packed[index] = np.packbits(voxels)
        return packed

    def _slices_of(self, label: str, mask: DrawnMask) -> Iterator[tuple[int, Volume]]:
        if isinstance(mask, Mapping):
            _check_slices(mask, self._slices, self._name)
            yield from ((int(index), np.asarray(drawn)) for index, drawn in mask.items())
            return
        if np.shape(mask) != self._contrasts.shape[1:]:
            raise GeometryMismatchError(
                f"{self._name}: expected {label} to have {self._contrasts.shape[1:]} voxels, found {np.shape(mask)}"
            )
        whole = drawn_voxels(np.asarray(mask), f"{self._name}: {label}")  # slice by slice, a label map could pass
        yield from enumerate(np.moveaxis(whole, self._slice_axis, 0))

    def _unpacked(self, bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        rows, columns = self._slice_shape
        return np.unpackbits(bits, count=rows * columns).reshape(rows, columns).astype(np.bool_)


def _copied_image(volume: Volume, name: str) -> Image:
    """(C, X, Y, Z) float32, a copy; what does not fit its range becomes infinite, and is refused when it is read."""
    image = np.asarray(volume)
    if not is_real(image.dtype):
        raise UnreadableImageError(f"{name}: expected one real number a voxel, found {image.dtype}; convert the image")
    image = image[np.newaxis] if image.ndim == 3 else image
    if image.ndim != 4 or not image.size or len(image) > MAX_CONTRASTS:
        raise UnreadableImageError(
            f"{name}: expected (X, Y, Z) or 1 to {MAX_CONTRASTS} contrasts (C, X, Y, Z), found {np.shape(volume)}"
        )
    with np.errstate(over="ignore"):
        return image.astype(np.float32, order="C", copy=True)


def _copied_affine(affine: Affine, name: str) -> Affine:
    given = np.asarray(affine)
    if not is_real(given.dtype):
        raise UnreadableImageError(f"{name}: expected an affine (4, 4) of finite numbers, found another")
    copied: Affine = given.astype(np.float64, copy=True)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused
        fault = affine_fault(copied)
    if fault:
        raise UnreadableImageError(f"{name}: {fault}")
    return copied


def _check_slices(indices: Collection[int], slices: int, name: str) -> None:
    for index in indices:
        if isinstance(index, bool | np.bool_) or not isinstance(index, int | np.integer) or not 0 <= index < slices:
            raise AnnotationError(f"{name}: expected slices 0 to {slices - 1}, found {index!r}")


def _checked_labels(labels: Collection[str], name: str) -> dict[str, str]:
    """Each label, trimmed, to the spelling that was given."""
    named = {checked_label(label, name): label for label in labels}
    if not named:
        raise AnnotationError(f"{name}: expected at least one label, found none; draw one")
    if len({label_key(label) for label in named}) != len(labels):
        raise AnnotationError(f"{name}: expected labels that differ in more than spelling, found two alike; rename one")
    return named
