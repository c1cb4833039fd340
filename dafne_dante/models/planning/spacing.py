"""The spacing that images are resampled to, by nnU-Net's rule (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z).

Terms: the *coarse axis* is the one with the largest spacing, where it is over three times that of the next and the
images are over three times as long, in voxels, along both others. Axes are (Z, X, Y).

Invariant: the median along every axis; along a coarse axis the 10th percentile, so that thin slices are not averaged
away, but never finer than the other axes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dafne_dante.models.planning.fingerprint import Fingerprint
from dafne_dante.models.planning.wording import AXES, number, times

__all__ = ["ANISOTROPIC_RATIO", "TargetSpacing", "choose_spacing"]

ANISOTROPIC_RATIO = 3.0
_COARSE_PERCENTILE = 10


@dataclass(frozen=True)
class TargetSpacing:
    """Millimetres per voxel along (Z, X, Y), the coarse axis (0 for Z) or None, and why."""

    spacing_mm: tuple[float, float, float]
    coarse_axis: int | None
    why: str


def choose_spacing(fingerprint: Fingerprint) -> TargetSpacing:
    """The spacing for these cases."""
    spacings, sizes = fingerprint.spacings_mm, np.median(fingerprint.tissues, axis=0)
    target = np.median(spacings, axis=0)
    cases = "the only case" if len(spacings) == 1 else f"the {len(spacings)} cases"
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarsest_other = float(target[others].max())
    coarse_spacing = target[worst] > ANISOTROPIC_RATIO * coarsest_other
    if not (coarse_spacing and sizes[worst] * ANISOTROPIC_RATIO < sizes[others].min()):
        return _target(target, None, f"{times(target)} mm, the median of {cases} along each axis")
    ratio = target[worst] / coarsest_other
    target[worst] = max(float(np.percentile(spacings[:, worst], _COARSE_PERCENTILE)), coarsest_other)
    why = (
        f"{times(target)} mm: the median of {cases} in plane; along {AXES[worst]}, where voxels are "
        f"{number(ratio)} times as long, the 10th percentile, so that thin slices are not averaged away"
    )
    return _target(target, worst, why)


def _target(spacing: npt.NDArray[np.float64], coarse_axis: int | None, why: str) -> TargetSpacing:
    z, x, y = (float(value) for value in spacing)
    return TargetSpacing((z, x, y), coarse_axis, why)
