"""Plans of the three architectures for a patch of about some size, in the form that stock Dafne builds.

Rules
- U-Net: strides are stock Dafne's (build.py): every level but the first two and the last halves in plane, the first two
  of those along Z too. Levels: as many as leave at least 8 voxels in plane at the bottom, up to 5 in 3D, or 4 voxels
  up to level 4; in 2D up to what keeps the last level at 512 channels (nnU-Net's bound). Stock inference pads images
  to a multiple of 32, so a 2D patch is one, and a 3D patch a multiple of 8, which 5 levels divide.
- DynUNet: `topology`; its channels, 32 to 320, are fixed in stock Dafne.

Invariants: every draft can be built, saved and run by stock clients; sizes are (Z, X, Y), or (X, Y) in 2D.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from dafne_dante.models.plan import Architecture, ModelPlan
from dafne_dante.models.planning.fingerprint import Fingerprint
from dafne_dante.models.planning.fitting import Draft
from dafne_dante.models.planning.topology import design_topology

__all__ = ["draft_for", "first_patch", "median_shape"]

_FIRST_VOLUME = 256**3
_FIRST_AREA = 2048**2
_LARGEST_SIZE = 2048
_CPU_CHANNELS, _GPU_CHANNELS = 16, 32
_MULTIPLE_3D, _SMALLEST_3D = 8, 16
_MULTIPLE_2D = 32
_MOST_CHANNELS_2D = 512


def median_shape(fingerprint: Fingerprint, spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """The median case on the grid of `spacing_mm`, (Z, X, Y)."""
    return tuple(int(size) for size in np.round(np.median(fingerprint.tissues_at(spacing_mm), axis=0)))


def first_patch(spacing_mm: Sequence[float], shape: Sequence[int]) -> tuple[int, ...]:
    """What the images ask for: cubic in millimetres, of 256^3 voxels (2048^2 in 2D), within the median shape."""
    volume = _FIRST_VOLUME if len(spacing_mm) == 3 else _FIRST_AREA
    edge_mm = (volume * math.prod(spacing_mm)) ** (1 / len(spacing_mm))
    wished = (max(1, round(edge_mm / spacing)) for spacing in spacing_mm)
    return tuple(min(wish, size, _LARGEST_SIZE) for wish, size in zip(wished, shape, strict=True))


def draft_for(
    architecture: Architecture,
    fingerprint: Fingerprint,
    spacing_mm: Sequence[float],
    shape: Sequence[int],
    *,
    on_gpu: bool,
) -> Draft:
    """The drafts of an architecture for these cases; spacing and shape (Z, X, Y), also for a U-Net in 2D."""
    first = 1 if architecture == "unet2d" else 0
    plan = ModelPlan(
        architecture=architecture,
        labels=fingerprint.labels,
        in_channels=fingerprint.contrasts,
        patch=tuple(shape[first:]),
        spacing_mm=tuple(float(value) for value in spacing_mm[first:]),
        median_shape=tuple(shape[first:]),
        first_channels=_GPU_CHANNELS if on_gpu or architecture == "dynunet" else _CPU_CHANNELS,
    )
    return partial({"unet2d": _unet2d, "unet3d": _unet3d, "dynunet": _dynunet}[architecture], plan)


def _unet2d(plan: ModelPlan, patch: tuple[int, ...]) -> ModelPlan:
    size = tuple(_up(length, _MULTIPLE_2D) for length in patch)
    halvings = int(math.log2(min(size) / 8))
    most = 1 + int(math.log2(_MOST_CHANNELS_2D / plan.first_channels))
    return replace(plan, patch=size, levels=min(most, 2 + halvings))


def _unet3d(plan: ModelPlan, patch: tuple[int, ...]) -> ModelPlan:
    size = tuple(max(_SMALLEST_3D, _up(length, _MULTIPLE_3D)) for length in patch)
    return replace(plan, patch=size, levels=5 if min(size[1:]) >= 64 else 4)


def _dynunet(plan: ModelPlan, patch: tuple[int, ...]) -> ModelPlan:
    topology = design_topology(plan.spacing_mm, patch)
    stages = len(topology.strides)
    return replace(plan, patch=topology.patch, levels=stages, kernels=topology.kernels, strides=topology.strides)


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
