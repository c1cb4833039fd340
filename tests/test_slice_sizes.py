"""Slices of several sizes in 2D: each as inference has it, one size a batch, all of them visited."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from limbs import limb_plan, make_limb

from dafne_dante.models.preprocess import pad_for_network
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.sampling import PatchSampler


def slices_of(sides):
    """One labelled slice of each side, in voxels; its background shows which one it is."""
    whole, cases = make_limb(1), []
    for number, side in enumerate(sides):
        image = np.full((1, side, side, 1), 1.0 + number, np.float32)
        image[0, : side // 2] += 50
        segmentation = np.zeros((side, side, 1), np.uint8)
        segmentation[: side // 2] = 1
        cases.append(
            dataclasses.replace(
                whole, case_id=str(number), image=image, segmentation=segmentation, annotated=np.ones(1, bool)
            )
        )
    return cases


@pytest.fixture
def plan():
    return dataclasses.replace(limb_plan(2), patch=(96, 96), median_shape=(80, 80))


def test_a_small_slice_is_padded_as_for_inference_and_no_further(plan):
    prepared = prepare_cases(slices_of([20, 50, 90, 130]), plan)
    sampler = PatchSampler(prepared, plan, seed=0)
    sizes = {sampler.draw(1).image.shape[2:] for _ in range(8)}
    expected = {
        tuple(min(96, size) for size in pad_for_network(one.prepared.image, plan)[0].shape[1:]) for one in prepared
    }
    assert sizes == expected == {(32, 32), (64, 64), (96, 96)}


def test_a_batch_has_one_size_and_all_slices_are_visited_as_often(plan):
    prepared = prepare_cases(slices_of([20] * 4 + [50] * 6 + [90] * 2), plan)
    sampler = PatchSampler(prepared, plan, seed=0)
    seen = Counter()
    for _ in range(60):
        batch = sampler.draw(2)
        assert batch.image.shape[2:] == batch.target.shape[1:] == batch.known.shape[1:]
        seen[batch.image.shape[2]] += 2
    assert seen == {32: 40, 64: 60, 96: 20}


def test_a_slice_that_is_alone_with_its_size_fills_its_batch(plan):
    sampler = PatchSampler(prepare_cases(slices_of([20, 90, 90]), plan), plan, seed=0)
    sizes = Counter(sampler.draw(2).image.shape[2] for _ in range(20))
    assert set(sizes) == {32, 96}
    assert sum(sizes.values()) == 20


def test_a_sampler_that_goes_on_draws_the_same(plan):
    prepared = prepare_cases(slices_of([20, 50, 50, 90, 90]), plan)
    sampler, other = (PatchSampler(prepared, plan, seed=3) for _ in range(2))
    for _ in range(3):
        sampler.draw(2)
    other.restore(sampler.state())
    for _ in range(5):
        one, two = sampler.draw(2), other.draw(2)
        assert one.image.equal(two.image)
