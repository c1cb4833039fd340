"""Cases padded as for inference, without a padded copy of any.

Terms: a *place* is an index into the padded case, axis by axis.

Invariants
- A patch is that of the padded arrays, bit for bit; what lies outside the case is zero and not known.
- Memory holds at most 20,000 voxels of each label, and a line of indices an axis; the case itself is taken from its
  sequence when a patch is cut, so that it may lie on disk until then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.preprocess import padding_for_network
from dafne_dante.training.prepared import PreparedCase

__all__ = ["PaddedCase", "cut_patch", "pad_case", "patch_start"]

_KEPT_CENTRES = 20_000


@dataclass(frozen=True, eq=False)
class PaddedCase:
    """Where the centre of a patch may lie.

    Attributes:
        shape: of the padded case.
        patch: the size of a patch of it.
        centres: for each label that occurs its known voxels (n, axes).
        anywhere: for each axis the places around which a patch holds something known.
    """

    cases: Sequence[PreparedCase]
    number: int
    before: tuple[int, ...]
    shape: tuple[int, ...]
    patch: tuple[int, ...]
    centres: tuple[npt.NDArray[np.int64], ...]
    anywhere: tuple[npt.NDArray[np.int64], ...]

    @property
    def is_known(self) -> bool:
        """Whether anything in it is known."""
        return bool(self.anywhere[0].size)

    def cut(
        self, start: Sequence[int], size: Sequence[int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """image (C, *size), target and known (*size) of the patch at `start`."""
        case = self.cases[self.number]
        low = [first - before for first, before in zip(start, self.before, strict=True)]
        parts = (case.prepared.image, case.target, case.known_voxels)
        image, target, known = (cut_patch(part, low, size) for part in parts)
        return image, target, known


def pad_case(
    cases: Sequence[PreparedCase], number: int, plan: ModelPlan, random: np.random.Generator
) -> PaddedCase:  # fmt: skip
    """The case with this number, padded for the plan; `random` chooses which voxels of large labels are kept."""
    case = cases[number]
    padding = padding_for_network(case.target.shape, plan)
    before = tuple(low for low, _ in padding)
    shape = tuple(size + low + high for size, (low, high) in zip(case.target.shape, padding, strict=True))
    centres = tuple(voxels + np.array(before) for voxels in _label_voxels(case, random))
    # Inference takes slices whole, and cuts volumes into windows, which it fills up where the volume is smaller.
    patch = tuple(map(min, plan.patch, shape)) if plan.dimensions == 2 else plan.patch
    sizes = enumerate(zip(before, shape, patch, strict=True))
    anywhere = tuple(_around(case.known_voxels, axis, *lengths) for axis, lengths in sizes)
    return PaddedCase(cases, number, before, shape, patch, centres, anywhere)


def cut_patch(volume: npt.NDArray[Any], low: Sequence[int], size: Sequence[int]) -> npt.NDArray[Any]:
    """The patch at `low` of the last axes, which may lie partly outside: there it is zero."""
    lead = volume.ndim - len(size)
    source, target = [slice(None)] * lead, [slice(None)] * lead
    for first, length, have in zip(low, size, volume.shape[lead:], strict=True):
        begin = min(max(first, 0), have)
        end = max(begin, min(first + length, have))
        source.append(slice(begin, end))
        target.append(slice(begin - first, end - first))
    piece = volume[tuple(source)]
    if piece.shape[lead:] == tuple(size):
        return np.ascontiguousarray(piece)
    patch = np.zeros((*volume.shape[:lead], *size), volume.dtype)
    patch[tuple(target)] = piece
    return patch


def patch_start(centre: npt.ArrayLike, size: int, length: int) -> npt.NDArray[np.int64]:
    """Where a patch of `size` begins along an axis, moved so that it lies inside as far as it can."""
    start: npt.NDArray[np.int64] = np.clip(np.asarray(centre) - size // 2, 0, max(0, length - size))
    return start


def _around(known: npt.NDArray[np.bool_], axis: int, before: int, length: int, size: int) -> npt.NDArray[np.int64]:
    """Places along the axis around which a patch holds something known.

    Axis by axis, since what is known is whole slices of the unpadded image: a patch that meets it along every axis
    meets it.
    """
    inside = np.zeros(length, np.bool_)
    others = tuple(other for other in range(known.ndim) if other != axis)
    inside[before : before + known.shape[axis]] = known.any(axis=others)
    counted = np.concatenate([[0], np.cumsum(inside)])
    start = patch_start(np.arange(length), size, length)
    return np.flatnonzero(counted[np.minimum(start + size, length)] > counted[start])


def _label_voxels(case: PreparedCase, random: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Known voxels of each label that occurs; at most 20,000 of each are kept."""
    known = case.known_voxels
    for value in np.unique(case.target[known]):
        if value:
            voxels = np.argwhere((case.target == value) & known)
            yield voxels[random.permutation(len(voxels))[:_KEPT_CENTRES]]
