"""Images as the network sees them, exactly as every stock Dafne client prepares them.

Terms
- prepared image: (C, Z, X, Y) float32 in the plan's spacing, cropped to the positive voxels, z-scored over non-zero
  voxels. A 2D network sees each slice on its own: cropped, resampled and z-scored alone (the record says which).
- record: what was done, so that labels follow the image and predictions find their way back.

Invariants: for the same image and plan the prepared image equals that of `dafne_inference.run_inference` (DAFNE.md
section 1: crop, cubic resampling with clipping, z-score); a model trained otherwise loses Dice in every stock client.
Interpolation is scipy's spline zoom on the pixel grid, which is what scikit-image's `resize` calls.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dafne_dante.models.plan import ModelPlan
from dafne_dante.types import AnnotatedSlices, Image, Segmentation, SpacingMm

__all__ = [
    "PreparedImage",
    "Record",
    "pad_for_network",
    "padding_for_network",
    "positive_box",
    "prepare_image",
    "prepare_known",
    "prepare_segmentation",
    "restore_segmentation",
]

_ANISOTROPIC_RATIO = 3.0
_SPACING_TOLERANCE_MM = 1e-4
_UNET_MULTIPLE = 32

_Whole = TypeVar("_Whole", np.uint8, np.int64)


@dataclass(frozen=True)
class Record:
    """How an image was prepared; all tuples in the order of its axes, (Z, X, Y), or (X, Y) for one slice.

    Attributes:
        original_shape: before the crop.
        start, stop: the crop box.
        shape: after resampling.
        resampled: False when the image had the plan's spacing already.
        anisotropic: resampled slice by slice, then linearly across slices.
    """

    original_shape: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]
    shape: tuple[int, ...]
    resampled: bool
    anisotropic: bool


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A prepared image (C, Z, X, Y) or (C, X, Y) float32 with its record."""

    image: npt.NDArray[np.float32]
    record: Record


def prepare_image(image: Image, spacing_mm: SpacingMm, plan: ModelPlan) -> PreparedImage:
    """Prepare a Case's image (C, X, Y, Z) for a 3D plan, or one slice (C, X, Y) for a 2D plan.

    `spacing_mm` runs along X, Y, Z also for a slice. The result's axes are (C, Z, X, Y) or (C, X, Y).
    """
    x, y, z = (float(np.float32(value)) for value in spacing_mm)
    spacing = (x, y) if image.ndim == 3 else (z, x, y)
    slices_first = image if image.ndim == 3 else np.moveaxis(image, -1, 1)
    start, stop = positive_box(slices_first)
    cropped = slices_first[(slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))]
    resampled = not np.allclose(plan.spacing_mm, spacing, atol=_SPACING_TOLERANCE_MM)
    anisotropic = resampled and (_is_anisotropic(spacing) or _is_anisotropic(plan.spacing_mm))
    shape = cropped.shape[1:]
    if resampled:
        shape = tuple(int(n) for n in np.round(np.divide(spacing, plan.spacing_mm) * np.array(shape)).astype(int))
        shape = tuple(max(1, size) for size in shape)
        cropped = np.stack([_resample(channel, shape, anisotropic) for channel in cropped])
    record = Record(slices_first.shape[1:], start, stop, shape, resampled, anisotropic)
    return PreparedImage(_z_score(np.ascontiguousarray(cropped, dtype=np.float32)), record)


def prepare_segmentation(
    segmentation: Segmentation, record: Record, annotated: AnnotatedSlices | None = None
) -> npt.NDArray[np.uint8]:
    """Bring labels (X, Y, Z), or (X, Y) of one slice, onto the prepared image's grid by nearest neighbour.

    With `annotated` (Z,), slices follow it as in `prepare_known`; without, every slice is labelled.
    """
    labels = segmentation if segmentation.ndim == 2 else np.moveaxis(segmentation, -1, 0)
    cropped = labels[tuple(slice(a, b) for a, b in zip(record.start, record.stop, strict=True))]
    if annotated is not None and not annotated.all():
        slices = cropped[_source_slices(annotated, record)]
        return _nearest(slices, record.shape) if record.resampled else slices
    return _nearest(cropped, record.shape) if record.resampled else np.ascontiguousarray(cropped)


def prepare_known(annotated: AnnotatedSlices, record: Record) -> npt.NDArray[np.bool_]:
    """Which slices (Z,) of the prepared volume somebody labelled.

    A prepared slice has the labels of the slice nearest to its centre. Where nobody labelled that one, it has those
    of the nearest labelled slice within its own thickness, so that at a coarser spacing no labelled slice is lost.
    """
    known: npt.NDArray[np.bool_] = annotated[record.start[0] : record.stop[0]][_source_slices(annotated, record)]
    return known


def restore_segmentation(prediction: npt.NDArray[np.uint8], record: Record) -> Segmentation:
    """Undo the preparation: labels on the prepared grid back to (X, Y, Z), or (X, Y) for one slice."""
    box = tuple(b - a for a, b in zip(record.start, record.stop, strict=True))
    labels = _nearest(prediction, box) if record.resampled else prediction
    full = np.zeros(record.original_shape, dtype=np.uint8)
    full[tuple(slice(a, b) for a, b in zip(record.start, record.stop, strict=True))] = labels
    return full if full.ndim == 2 else np.ascontiguousarray(np.moveaxis(full, 0, -1))


def positive_box(image: npt.NDArray[np.float32]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Start and stop of the smallest box around voxels above zero in any channel of (C, *shape).

    The whole image when there is none.
    """
    positive: npt.NDArray[np.bool_] = np.any(image > 0, axis=0)
    if not positive.any():
        return (0,) * positive.ndim, positive.shape
    occupied = [np.flatnonzero(np.moveaxis(positive, axis, 0).reshape(size, -1).any(axis=1))
                for axis, size in enumerate(positive.shape)]  # fmt: skip
    return tuple(int(index[0]) for index in occupied), tuple(int(index[-1]) + 1 for index in occupied)


def pad_for_network(
    image: npt.NDArray[np.float32], plan: ModelPlan
) -> tuple[npt.NDArray[np.float32], tuple[slice, ...]]:
    """Zero-pad (C, *shape) on both sides as stock clients do; also the slices that cut the padding off again."""
    padding = padding_for_network(image.shape[1:], plan)
    inner = tuple(slice(low, low + size) for (low, _), size in zip(padding, image.shape[1:], strict=True))
    return np.pad(image, [(0, 0), *padding]), inner


def padding_for_network(shape: tuple[int, ...], plan: ModelPlan) -> tuple[tuple[int, int], ...]:
    """For each axis how many voxels go before and after.

    A U-Net gets a multiple of 32 along every axis, a DynUNet at least its patch.
    """
    padding: list[tuple[int, int]] = []
    for size, patch in zip(shape, plan.patch, strict=True):
        wanted = max(size, patch) if plan.architecture == "dynunet" else -(-size // _UNET_MULTIPLE) * _UNET_MULTIPLE
        padding.append(((wanted - size) // 2, wanted - size - (wanted - size) // 2))
    return tuple(padding)


def _is_anisotropic(spacing: tuple[float, ...]) -> bool:
    return max(spacing) / min(spacing) >= _ANISOTROPIC_RATIO


def _resample(volume: npt.NDArray[np.float32], shape: tuple[int, ...], anisotropic: bool) -> npt.NDArray[np.float32]:
    if not anisotropic or volume.ndim == 2:
        return _zoom(volume, shape, order=3, mode="nearest")
    slices = np.stack([_zoom(one, shape[1:], order=3, mode="nearest") for one in volume])
    return slices if len(slices) == shape[0] else _zoom(slices, shape, order=1, mode="grid-constant")


def _zoom(volume: npt.NDArray[np.float32], shape: tuple[int, ...], *, order: int, mode: str) -> npt.NDArray[np.float32]:
    """Spline interpolation on the pixel grid, clipped to the input's range."""
    factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    result = ndimage.zoom(volume.astype(np.float32, copy=False), factors, order=order, mode=mode, grid_mode=True)
    clipped: npt.NDArray[np.float32] = np.clip(result, volume.min(), volume.max())
    return clipped


def _nearest(labels: npt.NDArray[_Whole], shape: tuple[int, ...]) -> npt.NDArray[_Whole]:
    factors = [new / old for new, old in zip(shape, labels.shape, strict=True)]
    result: npt.NDArray[_Whole] = ndimage.zoom(labels, factors, order=0, mode="nearest", grid_mode=True)
    return result


def _source_slices(annotated: AnnotatedSlices, record: Record) -> npt.NDArray[np.int64]:
    """For each prepared slice, which slice of the crop its labels come from; see `prepare_known`."""
    labelled = annotated[record.start[0] : record.stop[0]]
    here = np.arange(len(labelled))
    if not record.resampled:
        return here
    sources = _nearest(here, record.shape[:1])
    thickness = len(labelled) / record.shape[0]
    for target in np.flatnonzero(~labelled[sources]):
        distance = np.abs(here - ((target + 0.5) * thickness - 0.5))
        within = np.flatnonzero(labelled & (distance <= thickness / 2))
        if within.size:
            sources[target] = within[np.argmin(distance[within])]
    return sources


def _z_score(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Zero mean, unit deviation over the non-zero voxels of each channel; zeros stay zero."""
    result = image.copy()
    for channel in result:
        nonzero = channel != 0
        if nonzero.any():
            values = channel[nonzero]
            deviation = float(values.std()) or 1.0
            channel[nonzero] = (values - float(values.mean())) / deviation
    return result
