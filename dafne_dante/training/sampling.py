"""Patches drawn from prepared cases.

Terms: a batch is image (B, C, *patch) float32, target (B, *patch) int64, known (B, *patch) bool, on the CPU.

Invariants: two of three patches are centred on a labelled voxel, the label drawn first and evenly, so that a small
structure is seen as often as a large one; the centre of every patch lies on a known slice; what lies outside the
case is zero, as in the padding that stock inference adds. All randomness comes from one generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dafne_dante.errors import NotEnoughCasesError
from dafne_dante.training.prepared import PreparedCase

__all__ = ["Batch", "PatchSampler"]

_FOREGROUND_SHARE = 2 / 3
_KEPT_CENTRES = 20_000


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch; shapes and dtypes in the module docstring."""

    image: Tensor
    target: Tensor
    known: Tensor


class PatchSampler:
    """Draws batches from cases; NotEnoughCasesError when no case has a known voxel."""

    def __init__(self, cases: Sequence[PreparedCase], patch: Sequence[int], seed: int) -> None:
        self._cases = [case for case in cases if case.known.any()]
        if not self._cases:
            raise NotEnoughCasesError("expected at least one annotated slice to learn from, found none")
        self._patch = tuple(patch)
        self._random = np.random.default_rng(seed)
        self._centres = [self._foreground(case) for case in self._cases]
        self._queue: list[int] = []

    def draw(self, size: int) -> Batch:
        """One batch of `size` patches; every case is visited once before any is visited again."""
        patches = [self._draw_one() for _ in range(size)]
        image, target, known = (np.stack(parts) for parts in zip(*patches, strict=True))
        return Batch(torch.from_numpy(image), torch.from_numpy(target.astype(np.int64)), torch.from_numpy(known))

    def _draw_one(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        if not self._queue:
            self._queue = [int(index) for index in self._random.permutation(len(self._cases))]
        index = self._queue.pop()
        case, shape = self._cases[index], self._cases[index].target.shape
        start = [
            int(np.clip(centre - size // 2, 0, max(0, length - size)))
            for centre, size, length in zip(self._centre(index), self._patch, shape, strict=True)
        ]
        image = self._cut(case.prepared.image, start)
        return image, self._cut(case.target, start), self._cut(case.known_voxels, start, fill=True)

    def _centre(self, index: int) -> npt.NDArray[np.int64]:
        centres = self._centres[index]
        if centres and self._random.random() < _FOREGROUND_SHARE:
            voxels = centres[self._random.integers(len(centres))]
            centre: npt.NDArray[np.int64] = voxels[self._random.integers(len(voxels))]
            return centre
        case = self._cases[index]
        centre = np.array([self._random.integers(size) for size in case.target.shape])
        if case.known.ndim:
            centre[0] = self._random.choice(np.flatnonzero(case.known))
        return centre

    def _foreground(self, case: PreparedCase) -> list[npt.NDArray[np.int64]]:
        """For each label that occurs on known slices, voxel indices (n, axes); at most 20,000 of each are kept."""
        found: list[npt.NDArray[np.int64]] = []
        for value in np.unique(case.target[case.known_voxels]):
            if value:
                voxels = np.argwhere((case.target == value) & case.known_voxels)
                kept = self._random.permutation(len(voxels))[:_KEPT_CENTRES]
                found.append(voxels[kept])
        return found

    def _cut(self, volume: npt.NDArray[Any], start: Sequence[int], *, fill: bool = False) -> npt.NDArray[Any]:
        """The patch at `start` of the last axes, padded at the end where the case is smaller."""
        lead = volume.ndim - len(self._patch)
        box = tuple(slice(low, low + size) for low, size in zip(start, self._patch, strict=True))
        piece = volume[(slice(None),) * lead + box]
        missing = [size - have for size, have in zip(self._patch, piece.shape[lead:], strict=True)]
        if any(missing):
            piece = np.pad(piece, [(0, 0)] * lead + [(0, gap) for gap in missing], constant_values=fill)
        return np.ascontiguousarray(piece)
