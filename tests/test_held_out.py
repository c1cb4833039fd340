"""What is measured after every epoch: the whole of small sets, a fair and fixed part of large ones."""

import dataclasses

import numpy as np
import pytest
import torch
from limbs import LABELS, limb_plan, make_limb
from torch import nn

from dafne_dante.models.build import build_network
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.held_out import HeldOutWindows
from dafne_dante.training.prepared import prepare_cases


class Oracle(nn.Module):
    """Tells labels from intensity alone, so that windows and whole volumes must agree."""

    def __init__(self, thresholds):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.thresholds = thresholds
        self.voxels = 0

    def forward(self, image):
        self.voxels += image[:, 0].numel()
        first, second = (image[:, 0] > threshold for threshold in self.thresholds)
        return torch.stack([~first, first & ~second, second], dim=1).float() + self.anchor


def small_patches(plan):
    return dataclasses.replace(plan, patch=(8, 16, 16)) if plan.dimensions == 3 else plan


@pytest.mark.parametrize("dimensions", [2, 3])
def test_all_windows_together_are_the_whole_cases(dimensions):
    plan = small_patches(limb_plan(dimensions))
    cases = [make_limb(seed) for seed in (1, 2)]
    windows = HeldOutWindows(prepare_cases(cases, plan), plan)
    network = Oracle((0.3, 1.0))
    _, dice = windows.measure(network)
    assert dice == pytest.approx(evaluate_cases(network, plan, cases), abs=1e-9)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_bound_keeps_the_work_below_it_and_sees_every_label(dimensions):
    plan = small_patches(limb_plan(dimensions))
    prepared = prepare_cases([make_limb(seed) for seed in range(1, 5)], plan)
    everything = HeldOutWindows(prepared, plan)
    bound = everything.voxels // 2
    some = HeldOutWindows(prepared, plan, most_voxels=bound)
    assert 0.8 * bound < some.voxels <= bound
    network = Oracle((0.3, 1.0))
    loss, dice = some.measure(network)
    assert network.voxels == some.voxels
    assert all(dice[label] is not None for label in LABELS)
    assert some.measure(network) == (loss, dice), "the same windows every time"
    assert dice["mean"] == pytest.approx(everything.measure(network)[1]["mean"], abs=0.1)


def test_a_label_in_one_corner_of_one_case_is_not_lost_by_the_bound():
    plan = small_patches(limb_plan(3))
    cases = [make_limb(seed) for seed in range(1, 5)]
    rare = cases[2].segmentation.copy()
    rare[rare == 2] = 0
    rare[1:3, 1:3, 1:3] = 2
    others = [np.where(case.segmentation == 2, 0, case.segmentation).astype(np.uint8) for case in cases]
    cases = [
        dataclasses.replace(case, image=case.image + 1, segmentation=rare if index == 2 else others[index])
        for index, case in enumerate(cases)
    ]
    some = HeldOutWindows(prepare_cases(cases, plan), plan, most_voxels=0)
    _, dice = some.measure(Oracle((0.3, 1.0)))
    assert dice[LABELS[1]] is not None


def test_measuring_leaves_the_network_in_the_mode_it_had():
    plan = small_patches(limb_plan(3))
    network = build_network(plan).train()
    HeldOutWindows(prepare_cases([make_limb(1)], plan), plan).measure(network)
    assert network.training


def test_nothing_held_out_says_nothing():
    assert HeldOutWindows([], limb_plan(3), most_voxels=10).measure(Oracle((0, 1))) == (
        None,
        dict.fromkeys(["mean", *LABELS]),
    )
