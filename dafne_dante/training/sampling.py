"""Patches drawn from prepared cases.

Terms: a batch is image (B, C, *patch) float32, target (B, *patch) int64, known (B, *patch) bool, on the CPU.

Invariants
- A case is padded exactly as for inference before patches are drawn, and half of the patches lie anywhere in it:
  instance norm sees the share of empty padding that the windows of the sliding window have. Without that, Dice on
  whole volumes stays 0.1 below Dice on patches.
- The other half is centred on a labelled voxel, the label drawn first and evenly, so that a small structure is seen
  as often as a large one.
- Every patch holds a known voxel, wherever in the patch it may lie: another one would teach nothing.
- Padding is not known: it counts neither as background nor as anything else. All randomness comes from one generator.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dafne_dante.errors import NotEnoughCasesError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.preprocess import pad_for_network
from dafne_dante.training.prepared import PreparedCase

__all__ = ["Batch", "PatchSampler"]

_FOREGROUND_SHARE = 0.5
_KEPT_CENTRES = 20_000


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch; shapes and dtypes in the module docstring."""

    image: Tensor
    target: Tensor
    known: Tensor


@dataclass(frozen=True, eq=False)
class _PaddedCase:
    """image (C, *shape), target and known (*shape), and where the centre of a patch may lie.

    Attributes:
        centres: for each label its voxels (n, axes).
        anywhere: for each axis the indices around which a patch holds something known.
    """

    image: npt.NDArray[np.float32]
    target: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]
    centres: tuple[npt.NDArray[np.int64], ...]
    anywhere: tuple[npt.NDArray[np.int64], ...]


class PatchSampler:
    """Draws batches from cases; NotEnoughCasesError when no case has a known voxel."""

    def __init__(self, cases: Sequence[PreparedCase], plan: ModelPlan, seed: int) -> None:
        self._patch = plan.patch
        self._random = np.random.default_rng(seed)
        self._cases = [self._pad(case, plan) for case in cases if case.known.any()]
        if not self._cases:
            raise NotEnoughCasesError("expected at least one annotated slice to learn from, found none")
        self._queue: list[int] = []

    def draw(self, size: int) -> Batch:
        """One batch of `size` patches; every case is visited once before any is visited again."""
        patches = [self._draw_one() for _ in range(size)]
        image, target, known = (np.stack(parts) for parts in zip(*patches, strict=True))
        return Batch(torch.from_numpy(image), torch.from_numpy(target.astype(np.int64)), torch.from_numpy(known))

    def state(self) -> dict[str, Any]:
        """What the next draws depend on, besides the cases: plain values that fit into JSON."""
        return {"random": self._random.bit_generator.state, "queue": list(self._queue)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as the sampler of the same cases did whose `state` this is; ValueError for anything else."""
        queue = [int(index) for index in state["queue"]]
        if any(not 0 <= index < len(self._cases) for index in queue):
            raise ValueError("a case that is not there")
        self._random.bit_generator.state = state["random"]
        self._queue = queue

    def _draw_one(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        if not self._queue:
            self._queue = [int(index) for index in self._random.permutation(len(self._cases))]
        case = self._cases[self._queue.pop()]
        start = [
            int(_patch_start(centre, size, length))
            for centre, size, length in zip(self._centre(case), self._patch, case.target.shape, strict=True)
        ]
        return self._cut(case.image, start), self._cut(case.target, start), self._cut(case.known, start)

    def _centre(self, case: _PaddedCase) -> npt.NDArray[np.int64]:
        if case.centres and self._random.random() < _FOREGROUND_SHARE:
            voxels = case.centres[self._random.integers(len(case.centres))]
            centre: npt.NDArray[np.int64] = voxels[self._random.integers(len(voxels))]
            return centre
        return np.array([indices[self._random.integers(len(indices))] for indices in case.anywhere])

    def _pad(self, case: PreparedCase, plan: ModelPlan) -> _PaddedCase:
        image, inner = pad_for_network(case.prepared.image, plan)
        target = np.zeros(image.shape[1:], np.uint8)
        known = np.zeros(image.shape[1:], bool)
        target[inner], known[inner] = case.target, case.known_voxels
        anywhere = (self._around(known, axis) for axis in range(known.ndim))
        return _PaddedCase(image, target, known, tuple(self._label_voxels(target, known)), tuple(anywhere))

    def _around(self, known: npt.NDArray[np.bool_], axis: int) -> npt.NDArray[np.int64]:
        """Indices along the axis around which a patch holds something known.

        Axis by axis, since what is known is whole slices of the unpadded image: a patch that meets it along every
        axis meets it.
        """
        size, length = self._patch[axis], known.shape[axis]
        inside = known.any(axis=tuple(other for other in range(known.ndim) if other != axis))
        before = np.concatenate([[0], np.cumsum(inside)])
        start = _patch_start(np.arange(length), size, length)
        return np.flatnonzero(before[np.minimum(start + size, length)] > before[start])

    def _label_voxels(
        self, target: npt.NDArray[np.uint8], known: npt.NDArray[np.bool_]
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Known voxels of each label that occurs; at most 20,000 of each are kept."""
        for value in np.unique(target[known]):
            if value:
                voxels = np.argwhere((target == value) & known)
                yield voxels[self._random.permutation(len(voxels))[:_KEPT_CENTRES]]

    def _cut(self, volume: npt.NDArray[Any], start: Sequence[int]) -> npt.NDArray[Any]:
        """The patch at `start` of the last axes, padded with zeros at the end where the case is smaller."""
        lead = volume.ndim - len(self._patch)
        box = tuple(slice(low, low + size) for low, size in zip(start, self._patch, strict=True))
        piece = volume[(slice(None),) * lead + box]
        missing = [size - have for size, have in zip(self._patch, piece.shape[lead:], strict=True)]
        if any(missing):
            piece = np.pad(piece, [(0, 0)] * lead + [(0, gap) for gap in missing])
        return np.ascontiguousarray(piece)


def _patch_start(centre: npt.ArrayLike, size: int, length: int) -> npt.NDArray[np.int64]:
    """Where a patch of `size` begins along an axis, moved so that it lies inside as far as it can."""
    start: npt.NDArray[np.int64] = np.clip(np.asarray(centre) - size // 2, 0, max(0, length - size))
    return start
