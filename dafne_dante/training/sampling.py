"""Patches drawn from prepared cases.

Terms: a batch is image (B, C, *patch) float32, target (B, *patch) int64, known (B, *patch) bool, on the CPU. In 2D the
patch of a slice that is smaller than the plan's is as large as the slice, padded as for inference.

Invariants
- A case is padded exactly as for inference before patches are drawn, and half of the patches lie anywhere in it:
  instance norm sees the share of empty padding that the windows of the sliding window have. Without that, Dice on
  whole volumes stays 0.1 below Dice on patches.
- In 2D, where inference takes slices whole, small ones are not padded further either, for the same reason (0.06 Dice
  of a brain, all of it near its ends); slices of one batch have one size.
- The other half is centred on a labelled voxel, the label drawn first and evenly, so that a small structure is seen
  as often as a large one.
- Every patch holds a known voxel, wherever in the patch it may lie: another one would teach nothing.
- Padding is not known: it counts neither as background nor as anything else. All randomness comes from one generator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dafne_dante.errors import NotEnoughCasesError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.joined import JoinedCases
from dafne_dante.training.padded import PaddedCase, pad_case, patch_start
from dafne_dante.training.prepared import PreparedCase

__all__ = ["Batch", "PatchSampler"]

_FOREGROUND_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch; shapes and dtypes in the module docstring."""

    image: Tensor
    target: Tensor
    known: Tensor


class PatchSampler:
    """Draws batches from cases; NotEnoughCasesError when no case has a known voxel."""

    def __init__(self, cases: Sequence[PreparedCase], plan: ModelPlan, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        padded = [pad_case(cases, number, plan, self._random) for number in range(len(cases))]
        self._cases = [case for case in padded if case.is_known]
        places = {case.number: place for place, case in enumerate(self._cases)}
        turns = cases.turns if isinstance(cases, JoinedCases) else range(len(cases))
        self._turns = [places[number] for number in turns if number in places]
        if not self._cases:
            raise NotEnoughCasesError("expected at least one annotated slice to learn from, found none")
        self._queue: list[int] = []

    def draw(self, size: int, part: slice = slice(None)) -> Batch:
        """One batch of `size` patches; every case is visited once before any is visited again.

        But where no other case of the first one's size is left, any of that size completes the batch.

        Args:
            part: which patches are wanted; all are drawn, so that the next batch is the same whatever the part.
        """
        first = self._draw_place()
        places = [first] + [self._draw_place(first[0].patch) for _ in range(size - 1)]
        patches = [case.cut(start, case.patch) for case, start in places[part]]
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

    def _draw_place(self, patch: tuple[int, ...] | None = None) -> tuple[PaddedCase, list[int]]:
        """A case, whose patch is of that size where one is given, and where in it a patch begins."""
        case = self._cases[self._next(patch)]
        start = [
            int(patch_start(centre, size, length))
            for centre, size, length in zip(self._centre(case), case.patch, case.shape, strict=True)
        ]
        return case, start

    def _next(self, patch: tuple[int, ...] | None) -> int:
        """The next case of the queue, or the next with such a patch, or, where there is none left, any with it."""
        if not self._queue:
            self._queue = [self._turns[index] for index in self._random.permutation(len(self._turns))]
        places = range(len(self._queue) - 1, -1, -1)
        found = next((one for one in places if patch in {None, self._cases[self._queue[one]].patch}), None)
        if found is not None:
            return self._queue.pop(found)
        alike = [index for index, case in enumerate(self._cases) if case.patch == patch]
        return alike[int(self._random.integers(len(alike)))]

    def _centre(self, case: PaddedCase) -> npt.NDArray[np.int64]:
        if case.centres and self._random.random() < _FOREGROUND_SHARE:
            voxels = case.centres[self._random.integers(len(case.centres))]
            centre: npt.NDArray[np.int64] = voxels[self._random.integers(len(voxels))]
            return centre
        return np.array([indices[self._random.integers(len(indices))] for indices in case.anywhere])
