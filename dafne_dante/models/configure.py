"""A plan from the cases themselves: spacing, patch and depth of a 3D U-Net.

Rules: the target spacing is the median along each axis; the median shape is that of the positive voxels' box in that
spacing, since preprocessing crops to it; the patch is the median shape rounded up to what the strides divide, shrunk
along its longest axis until it fits the voxel budget of the machine; large patches get a fifth level. All sizes are
(Z, X, Y).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dafne_dante.annotations.case import Case
from dafne_dante.errors import AnnotationError, NotEnoughCasesError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.preprocess import positive_box

__all__ = ["configure_unet3d"]

_MULTIPLE = 8
_SMALLEST_AXIS = 16
CPU_PATCH_VOXELS = 32 * 64 * 64
GPU_PATCH_VOXELS = 64 * 128 * 128


def configure_unet3d(cases: Sequence[Case], *, on_gpu: bool = False) -> ModelPlan:
    """The plan of a 3D U-Net for these cases.

    Raises:
        NotEnoughCasesError: there is no case.
        AnnotationError: cases differ in labels or in their number of contrasts.
    """
    if not cases:
        raise NotEnoughCasesError("expected at least one case to configure a model from, found none")
    labels, channels = cases[0].labels, cases[0].image.shape[0]
    if any(case.labels != labels or case.image.shape[0] != channels for case in cases):
        raise AnnotationError("expected every case to have the same labels and contrasts; sort them into folders")
    spacing = np.median([_slices_first(case.spacing_mm) for case in cases], axis=0)
    shapes = [_tissue_shape(case) * _slices_first(case.spacing_mm) / spacing for case in cases]
    median_shape = np.maximum(1, np.round(np.median(shapes, axis=0))).astype(int)
    patch = _patch(median_shape, GPU_PATCH_VOXELS if on_gpu else CPU_PATCH_VOXELS)
    return ModelPlan(
        architecture="unet3d",
        labels=labels,
        in_channels=channels,
        patch=patch,
        spacing_mm=tuple(float(value) for value in spacing),
        median_shape=tuple(int(value) for value in median_shape),
        levels=5 if min(patch[1:]) >= 64 else 4,
        first_channels=32 if on_gpu else 16,
    )


def _tissue_shape(case: Case) -> npt.NDArray[np.float64]:
    """Voxels (Z, X, Y) of the box around what is positive."""
    start, stop = positive_box(case.image)
    x, y, z = np.subtract(stop, start)
    return np.array([z, x, y], dtype=np.float64)


def _patch(median_shape: npt.NDArray[np.int64], budget: int) -> tuple[int, ...]:
    """Multiples of 8 around the median shape, the longest axis shortened until the budget holds."""
    patch = np.maximum(_SMALLEST_AXIS, np.ceil(median_shape / _MULTIPLE).astype(int) * _MULTIPLE)
    while int(np.prod(patch)) > budget and patch.max() > _SMALLEST_AXIS:
        patch[int(np.argmax(patch))] -= _MULTIPLE
    return tuple(int(size) for size in patch)


def _slices_first(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = values
    return z, x, y
