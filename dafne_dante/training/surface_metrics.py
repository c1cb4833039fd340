"""How far the surfaces of a prediction and of its reference lie apart, in millimetres of the image's own grid.

Terms
- surface: voxels of a label that have a face in common with a voxel that is known not to have it. What lies outside
  the image has no label; what nobody annotated is not known. So the last annotated slice before unknown ones adds no
  lid to a structure, and slices that were labelled one by one have the contours that their annotator drew.
- HD95: the 95th percentile of the distances from the surface voxels of one to the nearest of the other, the larger of
  both directions (Huttenlocher et al. 1993 with percentiles, as MONAI counts it).
- surface Dice: the share of both surfaces that lies within a tolerance of the other (Nikolov et al. 2018,
  arXiv 1809.04430), counted in voxels of the surfaces.

Invariants
- Both surfaces lie in annotated slices, and distances run through the volume with its spacing, so a structure that is
  predicted three slices too far costs three slices. Where few slices are annotated a distance is an upper bound: the
  true neighbour may lie in a slice that nobody labelled.
- A label that is not in the reference says nothing about a case (None), as for Dice. A label that the model missed
  altogether has surface Dice 0, and no HD95 (None): there is no second surface to measure to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dafne_dante.types import AnnotatedSlices, Segmentation, SpacingMm

__all__ = ["DEFAULT_TOLERANCE_MM", "SurfaceScore", "surface_scores"]

DEFAULT_TOLERANCE_MM = 2.0
_PERCENTILE = 95
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SurfaceScore:
    """HD95 in mm and surface Dice from 0 to 1 of one label; None where it does not exist."""

    hd95_mm: float | None
    surface_dice: float | None


def surface_scores(
    prediction: Segmentation,
    reference: Segmentation,
    annotated: AnnotatedSlices,
    spacing_mm: SpacingMm,
    labels: Sequence[str],
    *,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
) -> dict[str, SurfaceScore]:
    """The scores of each label; prediction and reference (X, Y, Z), annotated (Z,), spacing along X, Y, Z."""
    known = np.broadcast_to(annotated, reference.shape)
    return {
        name: _score((prediction == value) & known, (reference == value) & known, annotated, spacing_mm, tolerance_mm)
        for value, name in enumerate(labels, start=1)
    }


def _score(
    predicted: _Mask, true: _Mask, annotated: AnnotatedSlices, spacing_mm: SpacingMm, tolerance_mm: float
) -> SurfaceScore:
    if not true.any():
        return SurfaceScore(None, None)
    if not predicted.any():
        return SurfaceScore(None, 0.0)
    box = _box(predicted | true)
    one, other = _surface(predicted, annotated)[box], _surface(true, annotated)[box]
    if not one.any() or not other.any():  # it fills all that is known: there is no border to compare
        return SurfaceScore(None, 1.0 if bool((one == other).all()) else 0.0)
    to_true, to_predicted = _distances(one, other, spacing_mm), _distances(other, one, spacing_mm)
    hd95 = max(float(np.percentile(values, _PERCENTILE)) for values in (to_true, to_predicted))
    near = int((to_true <= tolerance_mm).sum() + (to_predicted <= tolerance_mm).sum())
    return SurfaceScore(hd95, near / (len(to_true) + len(to_predicted)))


def _surface(mask: _Mask, annotated: AnnotatedSlices) -> _Mask:
    """Voxels of the mask with a face towards a known voxel outside it, or towards the edge of the image."""
    unknown = ~np.broadcast_to(annotated, mask.shape)
    inside = ndimage.binary_erosion(mask | unknown, border_value=0)
    surface: _Mask = mask & ~inside
    return surface


def _distances(source: _Mask, target: _Mask, spacing_mm: SpacingMm) -> npt.NDArray[np.float64]:
    """From each voxel of one surface to the nearest one of the other."""
    field: npt.NDArray[np.float64] = ndimage.distance_transform_edt(~target, sampling=spacing_mm)
    return field[source]


def _box(mask: _Mask) -> tuple[slice, ...]:
    """The smallest box around the mask; surfaces within it have their nearest neighbours within it."""
    found: tuple[slice, ...] = ndimage.find_objects(mask.astype(np.uint8))[0]
    return found
