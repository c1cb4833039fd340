"""Which architecture suits a set of cases, when nobody says.

Rules, in this order
1. Fewer than 8 slices, or fewer than 8 labelled ones, in the median case: 2D U-Net. A network that pools an axis once
   and keeps 4 voxels needs 8, and neighbours that nobody labelled teach nothing.
2. Voxels over three times as long along one axis as in the plane of the others: DynUNet, which leaves that axis alone
   until the others have caught up. On a CPU, where it takes some ten times as long a voxel, and where the axis is that
   of the slices, 2D U-Net.
3. Otherwise: 3D U-Net.
"""

import numpy as np

from dafne_dante.models.plan import Architecture
from dafne_dante.models.planning.fingerprint import Fingerprint
from dafne_dante.models.planning.spacing import ANISOTROPIC_RATIO, TargetSpacing
from dafne_dante.models.planning.wording import AXES, number, times

__all__ = ["choose_architecture"]

_FEWEST_SLICES = 8


def choose_architecture(fingerprint: Fingerprint, target: TargetSpacing, *, on_gpu: bool) -> tuple[Architecture, str]:
    """The architecture, and why in one sentence."""
    slices = float(np.median(fingerprint.tissues_at(target.spacing_mm)[:, 0]))
    drawn = fingerprint.annotated_slices
    if slices < _FEWEST_SLICES:
        return "unet2d", f"the median case has {_slices(slices)}, too few to pool once (8 are needed)"
    if drawn < _FEWEST_SLICES:
        return (
            "unet2d",
            f"the median case has {_slices(drawn)} with labels, too few to learn volumes from (8 are needed)",
        )
    spacing = target.spacing_mm
    coarsest = int(np.argmax(spacing))
    ratio = spacing[coarsest] / max(value for axis, value in enumerate(spacing) if axis != coarsest)
    if ratio <= ANISOTROPIC_RATIO:
        return "unet3d", (
            f"the median case has {_slices(slices)} and {number(drawn)} labelled ones, with voxels of "
            f"{times(spacing)} mm, similar along all axes"
        )
    longer = f"voxels are {number(ratio)} times as long along {AXES[coarsest]} as along the other axes"
    if coarsest == 0 and not on_gpu:
        return "unet2d", f"{longer}, so that slices tell little of each other, and a DynUNet is slow on a CPU"
    return "dynunet", f"{longer}, which only a DynUNet treats apart"


def _slices(count: float) -> str:
    return "1 slice" if count == 1 else f"{number(count)} slices"
