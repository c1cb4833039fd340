"""What is sent is small, and as good as what was learned."""

import importlib.util
from pathlib import Path
from uuid import UUID

import pytest
import torch
from phantoms import make_case
from sites import NEW_SCANNER

from dafne_dante.adaptation.gradual import GradualUnfreezing
from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.low_rank_method import LowRankAdaptation
from dafne_dante.adaptation.method import method_named
from dafne_dante.delta.difference import apply_updates, take_difference
from dafne_dante.delta.encode import updates_as_sent
from dafne_dante.models.build import build_network, canonical_weights
from dafne_dante.models.file import read_model, write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.stock_functions import stock_metadata, stock_sources
from dafne_dante.plugin.tuning import smallest_updates
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "delta_size.py"
MOST_DICE = 0.003


@pytest.fixture(scope="module")
def sizes():
    """The benchmark's own functions, which are for a network of 61 million numbers."""
    spec = importlib.util.spec_from_file_location("delta_size", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize(
    ("make", "most"), [(lambda: LowRankAdaptation(rank=8), 0.02), (GradualUnfreezing, 0.25)], ids=["lora", "gradual"]
)
def test_a_delta_is_a_small_share_of_the_model_s_file(sizes, tmp_path, make, most):
    """A DynUNet of the same make with 5.6 million numbers: the share is smaller, the larger the network."""
    torch.manual_seed(0)
    plan = sizes.large_plan(4)
    weights = dict(build_network(plan).state_dict())
    model = GlobalModel(UUID(int=7), 1, plan, weights, stock_metadata(plan), stock_sources(plan))
    write_model(model, tmp_path / "a.model")
    assert sizes.delta_bytes(model, make()) <= most * (tmp_path / "a.model").stat().st_size


@pytest.mark.parametrize("method", ["lora", "gradual-unfreezing", "full"])
def test_what_is_sent_is_as_good_as_what_was_learned(trained, method):
    """On cases that chose neither the weights nor the form in which they are sent."""
    base = read_model(trained / "base.model")
    torch.manual_seed(0)
    network, how = build_network(base.plan, base.weights), method_named(method)
    cases = [make_case(seed, **NEW_SCANNER) for seed in range(21, 25)]
    training, selection = prepare_cases(cases[:3], base.plan), prepare_cases(cases[3:], base.plan)
    recipe = Recipe(epochs=8, steps_per_epoch=12, learning_rate=1e-2, warmup_share=0.2, seed=0)
    fit(network, base.plan, how, training, selection, recipe=recipe)
    before = canonical_weights(base.plan, base.weights)
    learned = take_difference(before, canonical_weights(base.plan, plain_weights(network)), how.factors(network))
    sent = updates_as_sent(smallest_updates(base, learned, selection))
    unseen = [make_case(seed, **NEW_SCANNER) for seed in range(91, 97)]

    def dice(updates):
        weights = {**base.weights, **apply_updates(before, updates)}
        return evaluate_cases(build_network(base.plan, weights), base.plan, unseen)["mean"]

    whole = dice(learned)
    assert whole > dice(()) + 0.03, "something was learned that could be lost"
    assert abs(dice(sent) - whole) <= MOST_DICE
