"""Aliases that name the shape, the axes and the dtype of the arrays that cross module borders.

Axes: X, Y, Z are a Case's own voxel axes (Z runs through the slices); C counts contrasts.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Affine", "AnnotatedSlices", "Image", "Segmentation", "SpacingMm", "Volume", "Weights"]

Image: TypeAlias = npt.NDArray[np.float32]
"""(C, X, Y, Z) float32."""
Volume: TypeAlias = npt.NDArray[Any]
"""(X, Y, Z), any dtype."""
Segmentation: TypeAlias = npt.NDArray[np.uint8]
"""(X, Y, Z) uint8: 0 background, i = labels[i - 1]."""
AnnotatedSlices: TypeAlias = npt.NDArray[np.bool_]
"""(Z,) bool: True where somebody labelled the slice."""
Affine: TypeAlias = npt.NDArray[np.float64]
"""(4, 4) float64: voxel index to millimetres in RAS+."""
SpacingMm: TypeAlias = tuple[float, float, float]
"""Millimetres per voxel along X, Y, Z."""
Weights: TypeAlias = "Mapping[str, Tensor]"
"""State-dict name to tensor on the CPU."""
