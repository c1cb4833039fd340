"""Partial annotation matters: 12 of 60 slices labelled teach almost as much as all 60, if the others stay unknown.

The task is made up (see limbs); benchmarks/partial_annotation.py repeats it on real MRI. In each test the same
network learns from the same labelled slices twice: once the other slices are unknown, once they count as background.
"""

import copy

import pytest
import torch
from limbs import EVERY_FIFTH, limb_plan, make_limb, partly, taken_as_background

from dafne_dante.adaptation.method import method_named
from dafne_dante.models.build import build_network
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases

NEW_SCANNER = (180.0, 100.0, 230.0)
"""Brightness of limb, extensor and flexor where the base model was not trained."""


def fresh(plan):
    torch.manual_seed(0)
    return build_network(plan)


def train(network, plan, cases, recipe, method="full"):
    """The network after training on all cases; nothing is held out, so the last but the lowest loss decides."""
    chosen = method_named(method)
    fit(network, plan, chosen, prepare_cases(cases, plan), [], recipe=recipe)
    chosen.finish(network)
    return network


def dice_on_new_limbs(network, plan, **options):
    """Mean Dice on limbs that nobody trained on, labelled throughout."""
    return evaluate_cases(network, plan, [make_limb(seed, **options) for seed in (100, 101)])["mean"]


def three_ways(cases):
    """Labelled throughout; 12 of 60 slices; the same 12 with the other 48 taken for empty."""
    some = [partly(case, EVERY_FIFTH) for case in cases]
    return {"all": cases, "some": some, "naive": [taken_as_background(case) for case in some]}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_training_on_a_fifth_of_the_slices_is_as_good_as_on_all_and_the_naive_way_is_not(dimensions):
    plan = limb_plan(dimensions)
    recipe = Recipe(
        epochs=4,
        steps_per_epoch=15,
        batch_size=2 if dimensions == 3 else 4,
        learning_rate=5e-3,
        augmentation=Strengths(0.0),
    )
    dice = {
        name: dice_on_new_limbs(train(fresh(plan), plan, cases, recipe), plan)
        for name, cases in three_ways([make_limb(seed) for seed in range(3)]).items()
    }
    assert dice["all"] > 0.9
    assert dice["some"] > dice["all"] - 0.03
    assert dice["naive"] < dice["some"] - 0.3


def test_fine_tuning_on_a_few_slices_is_as_good_as_on_all_and_the_naive_way_is_not():
    plan = limb_plan(2)
    recipe = Recipe(epochs=4, steps_per_epoch=15, batch_size=4, learning_rate=5e-3)
    base = train(fresh(plan), plan, [make_limb(seed) for seed in range(3)], recipe)
    before = dice_on_new_limbs(base, plan, tissue=NEW_SCANNER)
    dice = {
        name: dice_on_new_limbs(train(copy.deepcopy(base), plan, cases, recipe, "lora"), plan, tissue=NEW_SCANNER)
        for name, cases in three_ways([make_limb(seed, tissue=NEW_SCANNER) for seed in (50, 51)]).items()
    }
    assert dice["some"] > before + 0.1
    assert dice["some"] > dice["all"] - 0.03
    assert dice["naive"] < dice["some"] - 0.3
