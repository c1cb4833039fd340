"""Strides and kernels of a DynUNet by nnU-Net's rules (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z).

Terms: a *stage* is one resolution; to *pool* an axis is to enter the next stage with stride 2 along it. All sizes have
the order of the spacing, (Z, X, Y).

Rules: an axis is pooled while its feature map is at least 8 wide, so that 4 remain, and while its voxels are less than
twice as long as the finest of those; an axis that alone is left needs 12. A kernel is 1 along an axis whose voxels are
still twice as long as the finest ones, 3 from the first stage on where they are not, and 3 in the last stage; along an
axis of one voxel it stays 1, because a wider one would see padding only.

Invariants: the patch is what was asked for, rounded up to what the strides divide; three to eight stages, which is
what MONAI's DynUNet can be built with and what a plan may hold; where a patch is too small for three, it grows along
its finest axes, and images are padded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Topology", "design_topology"]

_NARROWEST = 4
_POOLED_TOGETHER = 2.0
_FEWEST_STAGES = 3
_MOST_STAGES = 8


@dataclass(frozen=True)
class Topology:
    """Per stage its kernel and the stride it is entered with, and the patch that fits; (Z, X, Y) each."""

    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    patch: tuple[int, ...]

    @property
    def divisor(self) -> tuple[int, ...]:
        """What the patch is a multiple of along each axis."""
        return tuple(math.prod(column) for column in zip(*self.strides, strict=True))


def design_topology(spacing_mm: Sequence[float], patch: Sequence[int]) -> Topology:
    """The topology for a patch of about this size."""
    wanted = list(patch)
    while len((topology := _pool(spacing_mm, wanted)).strides) < _FEWEST_STAGES:
        finest = min(spacing_mm)
        fine = [axis for axis, value in enumerate(spacing_mm) if value < _POOLED_TOGETHER * finest]
        # Of the axes that are pooled together the thin one stays thin, as long as there are two others.
        grown = sorted(fine, key=lambda axis: -wanted[axis])[:2]
        for axis in grown:
            wanted[axis] = max(wanted[axis] + 1, _NARROWEST * 2 ** (_FEWEST_STAGES - 1))
    return topology


def _pool(spacing_mm: Sequence[float], patch: Sequence[int]) -> Topology:
    spacing, size = list(spacing_mm), list(patch)
    kernel = [1] * len(size)
    kernels: list[tuple[int, ...]] = []
    strides = [(1,) * len(size)]
    while len(strides) < _MOST_STAGES and (pooled := _poolable(spacing, size)):
        kernel = _wider(kernel, spacing, patch)
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in range(len(size))))
        for axis in pooled:
            spacing[axis] *= 2
            size[axis] = -(-size[axis] // 2)
    kernels.append(tuple(3 if length > 1 else 1 for length in patch))
    divisor = [math.prod(column) for column in zip(*strides, strict=True)]
    rounded = tuple(-(-length // step) * step for length, step in zip(patch, divisor, strict=True))
    return Topology(tuple(kernels), tuple(strides), rounded)


def _poolable(spacing: Sequence[float], size: Sequence[int]) -> list[int]:
    """The axes that are pooled next; none when the last stage is reached."""
    wide = [axis for axis, length in enumerate(size) if length >= 2 * _NARROWEST]
    if not wide:
        return []
    finest = min(spacing[axis] for axis in wide)
    chosen = [axis for axis in wide if spacing[axis] / finest < _POOLED_TOGETHER]
    return [] if len(chosen) == 1 and size[chosen[0]] < 3 * _NARROWEST else chosen


def _wider(kernel: Sequence[int], spacing: Sequence[float], patch: Sequence[int]) -> list[int]:
    """Kernels of the next stage: once 3, always 3."""
    finest = min(spacing)
    return [
        3 if before == 3 or (length > 1 and value / finest < _POOLED_TOGETHER) else 1
        for before, value, length in zip(kernel, spacing, patch, strict=True)
    ]
