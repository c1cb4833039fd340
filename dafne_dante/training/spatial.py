"""Patches turned, scaled and mirrored, drawn apart from the application so that both can be tested.

Terms
- offset: voxels from the centre of a patch, one number an axis, in the order of the patch's axes.
- a draw: for each sample the axes to mirror, and the matrix that takes an offset in the new patch to one in the old.

Invariants
- Angles and lengths are physical: a patch with 1 x 1 x 2 mm voxels is turned like the body in it, and stays a rotation.
- Where one axis is coarser than another by 3 or more, nothing turns out of the fine plane: thick slices do not hold
  what would have to be seen there.
- Image, target and known move together. Labels are never mixed (nearest neighbour), and what comes from outside the
  patch is zero in the image and unknown in the target.
- A sample that is neither turned nor scaled is not interpolated; strength 0 changes nothing.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.sampling import Batch

__all__ = ["SpatialDraw", "apply_spatial", "draw_spatial"]

_SHARE = 0.2
"""Of the samples that are turned, and of those that are scaled (nnU-Net's; SCIENCE.md section 7)."""
_LARGEST_ANGLE = math.radians(30)
_LARGEST_LOG_SCALE = 0.35
_ANISOTROPIC_RATIO = 3.0


@dataclass(frozen=True, eq=False)
class SpatialDraw:
    """For each of B samples: axes to mirror, and matrices (B, axes, axes) float32; both on the CPU.

    `moved` lists the samples whose matrix is not the identity.
    """

    mirrored: tuple[tuple[int, ...], ...]
    matrix: Tensor
    moved: tuple[int, ...]

    def part(self, first: int, end: int) -> "SpatialDraw":
        """The draw for the samples from `first` to before `end`, which are counted from 0 again."""
        moved = tuple(index - first for index in self.moved if first <= index < end)
        return SpatialDraw(self.mirrored[first:end], self.matrix[first:end], moved)


def draw_spatial(
    samples: int, plan: ModelPlan, strength: float, generator: torch.Generator, *, mirror_axes: tuple[int, ...] = ()
) -> SpatialDraw:
    """Draw for a batch: at strength 1 angles up to 30 degrees and sizes from 0.7 to 1.4; each mirror by half."""
    axes = len(plan.patch)
    chance = torch.rand(samples, 2, generator=generator) < (_SHARE if strength else 0.0)
    centred = 2 * torch.rand(samples, 4, generator=generator, dtype=torch.float64) - 1
    coins = torch.rand(samples, axes, generator=generator) < 0.5
    spacing = torch.tensor(plan.spacing_mm, dtype=torch.float64)
    matrices = []
    for (turned, scaled), values in zip(chance.tolist(), centred, strict=True):
        angles = strength * _LARGEST_ANGLE * values[:3] * float(turned)
        zoom = math.exp(strength * _LARGEST_LOG_SCALE * float(values[3]) * float(scaled))
        matrices.append(_rotation(angles, spacing) * spacing / spacing[:, None] / zoom)
    return SpatialDraw(
        mirrored=tuple(tuple(axis for axis in mirror_axes if row[axis]) for row in coins.tolist()),
        matrix=torch.stack(matrices).float(),
        moved=tuple(index for index, row in enumerate(chance.tolist()) if any(row)),
    )


def apply_spatial(batch: Batch, draw: SpatialDraw) -> Batch:
    """The changed batch: same shapes, dtypes and device."""
    image, target, known = batch.image, batch.target, batch.known
    if draw.moved:
        chosen = list(draw.moved)
        grid = _grid(draw.matrix[chosen], image[chosen]).to(image.device, non_blocking=True)
        image, target, known = image.clone(), target.clone(), known.clone()
        image[chosen] = functional.grid_sample(batch.image[chosen], grid, align_corners=False)
        # One code for both: 0 unknown, which is also what lies outside, else label + 1; exact in float32.
        code = torch.where(batch.known[chosen], batch.target[chosen] + 1, 0).to(image.dtype)[:, None]
        moved = functional.grid_sample(code, grid, mode="nearest", align_corners=False)[:, 0].long()
        target[chosen], known[chosen] = (moved - 1).clamp(min=0).to(target.dtype), moved > 0
    if any(draw.mirrored):
        image, target, known = (
            _mirror(tensor, draw.mirrored, batch.target.dim() - 1) for tensor in (image, target, known)
        )
    return Batch(image, target, known)


def _rotation(angles: Tensor, spacing: Tensor) -> Tensor:
    """The rotation (axes, axes) in millimetres, one angle for each plane in which the patch may turn."""
    axes = len(spacing)
    rotation = torch.eye(axes, dtype=torch.float64)
    for angle, plane in zip(angles.tolist(), combinations(range(axes), 2), strict=False):  # 2D has one plane
        if max(spacing[list(plane)]) >= _ANISOTROPIC_RATIO * min(spacing[list(plane)]):
            continue
        first, second = plane
        turn = torch.eye(axes, dtype=torch.float64)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        rotation = rotation @ turn
    return rotation


def _grid(matrix: Tensor, image: Tensor) -> Tensor:
    """Where each new voxel looks, in the coordinates of grid_sample: -1 to 1, the last axis first."""
    size = torch.tensor(image.shape[2:], dtype=matrix.dtype)
    theta = (matrix * size / size[:, None]).flip(1, 2)
    still = torch.zeros(len(matrix), len(size), 1, dtype=matrix.dtype)
    theta = torch.cat([theta, still], dim=2).to(image.device, image.dtype, non_blocking=True)
    return functional.affine_grid(theta, list(image.shape), align_corners=False)


def _mirror(tensor: Tensor, mirrored: tuple[tuple[int, ...], ...], axes: int) -> Tensor:
    """Each sample (..., *patch) mirrored along its own axes."""
    lead = tensor.dim() - 1 - axes
    return torch.stack(
        [sample.flip([lead + axis for axis in chosen]) for sample, chosen in zip(tensor, mirrored, strict=True)]
    )
