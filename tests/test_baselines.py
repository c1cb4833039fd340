"""The baselines: what they forget, what they hold, and that a pull to the start holds weights back."""

import re

import pytest
import torch
from limbs import limb_plan, make_limb
from networks import NETWORKS, build

from dafne_dante.adaptation.baselines import FromScratch, FullFineTuning, HeadOnly, NormOnly
from dafne_dante.adaptation.work import live_share_now
from dafne_dante.errors import TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases


def distance(network, others):
    return sum(
        float((one.detach() - other).square().sum()) for one, other in zip(network.parameters(), others, strict=True)
    )


def learn(method, **options):
    plan = limb_plan(2)
    torch.manual_seed(3)
    network = build_network(plan)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    cases = prepare_cases([make_limb(1)], plan)
    recipe = Recipe(epochs=2, steps_per_epoch=4, learning_rate=1e-2, augmentation=Strengths(0.0), **options)
    history = fit(network, plan, method, cases, cases, recipe=recipe).history
    return network, before, history


def test_a_pull_to_the_start_keeps_weights_near_it_and_nothing_else_changes():
    free, before, _ = learn(FullFineTuning())
    unpulled, _, _ = learn(FullFineTuning(pull_to_start=0.0))
    pulled, _, _ = learn(FullFineTuning(pull_to_start=20.0))
    assert all(torch.equal(one, other) for one, other in zip(free.parameters(), unpulled.parameters(), strict=True))
    assert 0 < distance(pulled, before) < 0.7 * distance(free, before)
    with pytest.raises(TrainingError, match="pull to the start from 0"):
        FullFineTuning(pull_to_start=-1.0)


@pytest.mark.parametrize("pull", [100.0, 1000.0, 1e6])
def test_a_pull_of_more_than_all_of_the_way_goes_to_the_start_and_not_beyond(pull):
    """The rate is 1e-2, so that a pull of 100 is all of the way in the first step, and 1000 were ten times of it."""
    network, before, history = learn(FullFineTuning(pull_to_start=pull))
    free, _, _ = learn(FullFineTuning())
    assert all(record.train_loss < 10 for record in history)
    assert distance(network, before) < 0.5 * distance(free, before)


@pytest.mark.parametrize("kind", NETWORKS)
def test_from_scratch_forgets_the_base_and_draws_as_a_new_network_does(kind):
    network, image = build(kind)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.0)
    torch.manual_seed(0)
    FromScratch().prepare(network, image)
    fresh, _ = build(kind)
    for (name, one), other in zip(network.named_parameters(), fresh.parameters(), strict=True):
        assert not (one == 7.0).any(), name
        if one.numel() > 200:
            assert float(one.detach().std()) == pytest.approx(float(other.detach().std()), rel=0.2), name


@pytest.mark.parametrize("method", [HeadOnly(), NormOnly()], ids=["head", "norm"])
def test_what_a_baseline_freezes_keeps_every_bit_and_it_says_so(method):
    network, before, history = learn(method)
    moved = [not torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True)]
    assert 0 < sum(moved) < len(moved)
    assert history[0].trainable_parameters < sum(one.numel() for one in before)
    network = build_network(limb_plan(2))
    everything = sum(one.numel() for one in network.parameters())
    method.prepare(network, torch.zeros(1, 1, *limb_plan(2).patch))
    live = sum(one.numel() for one in network.parameters() if one.requires_grad)
    words = method.describe(network)
    found = re.fullmatch(rf"what moves: {live:,} of {everything:,} parameters \(.*%\), (\d+)% of a step's work", words)
    assert found, words
    assert 33 < int(found[1]) < 70, "the forward pass, and a part of the way back"


def test_who_moves_everything_is_told_so_too():
    for method in (FullFineTuning(), FromScratch()):
        network = build_network(limb_plan(2))
        method.prepare(network, torch.zeros(1, 1, *limb_plan(2).patch))
        count = sum(one.numel() for one in network.parameters())
        told = f"what moves: {count:,} of {count:,} parameters (100.0%), 100% of a step's work"
        assert method.describe(network) == told


def test_the_work_of_a_module_whose_weight_stays_is_that_of_the_gradient_that_passes():
    network = torch.nn.Sequential(*(torch.nn.Conv1d(2, 2, 1) for _ in range(3)))
    example = torch.zeros(1, 2, 8)
    assert live_share_now(network, example) == 1.0
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.dim() == 1)
    assert live_share_now(network, example) == pytest.approx(2 / 3)
    network.requires_grad_(False)
    assert live_share_now(network, example) == pytest.approx(1 / 3)
    network[2].weight.requires_grad_(True)
    assert live_share_now(network, example) == pytest.approx((3 + 2) / 9)
    network[1].bias.requires_grad_(True)
    assert live_share_now(network, example) == pytest.approx((3 + 2 + 1) / 9)


def test_norms_alone_need_norms_and_a_head_needs_an_output():
    with pytest.raises(TrainingError, match="slopes or biases, found none"):
        NormOnly().prepare(torch.nn.Conv1d(1, 1, 1, bias=False), torch.zeros(1, 1, 4))
    with pytest.raises(TrainingError, match="found none; use another"):
        HeadOnly().prepare(torch.nn.Sequential(torch.nn.Conv1d(1, 2, 1), torch.nn.Flatten()), torch.zeros(1, 1, 4))
