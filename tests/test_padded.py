"""Patches of a case that is never padded are those of one that is, bit for bit."""

import dataclasses

import numpy as np
import pytest
import torch
from limbs import EVERY_FIFTH, SLICES, limb_plan, make_limb, partly

from dafne_dante.models.preprocess import pad_for_network
from dafne_dante.training.padded import cut_patch, pad_case, patch_start
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.sampling import PatchSampler

PLANS = {
    "2D": limb_plan(2),
    "3D": limb_plan(3),
    "resampled": dataclasses.replace(limb_plan(3, spacing_mm=5.0), patch=(6, 16, 16)),
    "a patch beyond the case": dataclasses.replace(limb_plan(3), patch=(96, 48, 80)),
    "DynUNet": dataclasses.replace(limb_plan(3), architecture="dynunet", patch=(80, 32, 16)),
}
ANNOTATED = {"all": np.ones(SLICES, bool), "every fifth": EVERY_FIFTH, "the first": np.arange(SLICES) < 1}


class Padded:
    """The slow, obvious way: arrays padded as a whole, from which a patch is cut, padded again where it is larger."""

    def __init__(self, case, plan):
        image, inner = pad_for_network(case.prepared.image, plan)
        self.arrays = [image, np.zeros(image.shape[1:], np.uint8), np.zeros(image.shape[1:], bool)]
        self.arrays[1][inner], self.arrays[2][inner] = case.target, case.known_voxels

    def cut(self, start, size):
        box = tuple(slice(low, low + length) for low, length in zip(start, size, strict=True))
        pieces = [array[(..., *box)] for array in self.arrays]
        return [np.pad(piece, self.missing(piece, size)) for piece in pieces]

    @staticmethod
    def missing(piece, size):
        lead = piece.ndim - len(size)
        return [(0, 0)] * lead + [(0, wanted - have) for wanted, have in zip(size, piece.shape[lead:], strict=True)]


@pytest.mark.parametrize("annotated", ANNOTATED)
@pytest.mark.parametrize("name", PLANS)
def test_patches_centres_and_places_are_those_of_padded_arrays(name, annotated):
    plan = PLANS[name]
    cases = prepare_cases([partly(make_limb(1), ANNOTATED[annotated])], plan)
    case = pad_case(cases, 0, plan, np.random.default_rng(0))
    oracle = Padded(cases[0], plan)
    image, target, known = oracle.arrays
    assert case.shape == target.shape
    for value, voxels in enumerate(case.centres, start=1):
        assert {tuple(voxel) for voxel in voxels} == {tuple(voxel) for voxel in np.argwhere((target == value) & known)}
    random = np.random.default_rng(1)
    for axis, (length, size) in enumerate(zip(case.shape, plan.patch, strict=True)):
        starts = patch_start(np.arange(length), size, length)
        met = [np.take(known, range(low, min(low + size, length)), axis).any() for low in starts]
        assert case.anywhere[axis].tolist() == np.flatnonzero(met).tolist()
    for _ in range(20):
        start = [int(random.integers(max(1, length - size + 1)))
                 for length, size in zip(case.shape, plan.patch, strict=True)]  # fmt: skip
        for one, other in zip(case.cut(start, plan.patch), oracle.cut(start, plan.patch), strict=True):
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    assert image.dtype == np.float32


@pytest.mark.parametrize("low", range(-6, 8))
def test_a_patch_may_lie_partly_or_wholly_outside(low):
    volume = np.arange(1, 11).reshape(2, 5)
    padded = np.pad(volume, [(0, 0), (9, 9)])
    assert cut_patch(volume, [low], [4]).tolist() == padded[:, low + 9 : low + 13].tolist()


def test_nothing_of_a_case_is_held_until_a_patch_is_cut():
    """So that cases may lie on a disk."""
    asked = []

    class Counting(list):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    plan = limb_plan(3)
    cases = Counting(prepare_cases([make_limb(1), make_limb(2)], plan))
    sampler, plain = PatchSampler(cases, plan, seed=0), PatchSampler(list(cases), plan, seed=0)
    asked.clear()
    batch, other = sampler.draw(4), plain.draw(4)
    assert sorted(asked) == [0, 0, 1, 1]
    for name in ("image", "target", "known"):
        assert torch.equal(getattr(batch, name), getattr(other, name))
