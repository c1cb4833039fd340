"""The baselines: what they forget, what they hold, and that a pull to the start holds weights back."""

import pytest
import torch
from limbs import limb_plan, make_limb
from networks import NETWORKS, build

from dafne_dante.adaptation.baselines import FromScratch, FullFineTuning, HeadOnly, NormOnly
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
    words = method.describe(build_network(limb_plan(2)))
    assert words.endswith("parameters move (100.0%)"), "outside of a training everything may move"


def test_norms_alone_need_norms_and_a_head_needs_an_output():
    with pytest.raises(TrainingError, match="slopes or biases, found none"):
        NormOnly().prepare(torch.nn.Conv1d(1, 1, 1, bias=False), torch.zeros(1, 1, 4))
    with pytest.raises(TrainingError, match="found none; use another"):
        HeadOnly().prepare(torch.nn.Sequential(torch.nn.Conv1d(1, 2, 1), torch.nn.Flatten()), torch.zeros(1, 1, 4))
