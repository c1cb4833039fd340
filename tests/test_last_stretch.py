"""The end of a training on all studies: when there is one, what it learns from, and what is told of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from phantoms import make_case, tiny_plan

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.models.build import build_network
from dafne_dante.training import last_stretch
from dafne_dante.training.averaging import named_tensors
from dafne_dante.training.last_stretch import Stretch, run_last_stretch, split_recipe, stretch_checkpoint
from dafne_dante.training.loop import fit
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.recipe import Recipe

PLAN = tiny_plan()
WHOLE = Recipe(epochs=8, steps_per_epoch=6, learning_rate=1e-2, warmup_steps=2, deep_supervision=True, patience=3)


@pytest.fixture
def chosen():
    """A training on two phantoms whose best epoch a third one chose."""
    torch.manual_seed(0)
    network = build_network(PLAN)
    training, held_out = (prepare_cases([make_case(seed) for seed in seeds], PLAN) for seeds in ((1, 2), (9,)))
    recipe = replace(WHOLE, epochs=3, deep_supervision=False)
    result = fit(network, PLAN, FullFineTuning(), training, held_out, recipe=recipe)
    return Stretch(network, PLAN, FullFineTuning(), training, held_out, result)


def copies(network):
    return {name: tensor.clone() for name, tensor in named_tensors(network).items()}


def test_the_epochs_asked_for_are_divided():
    first, last = split_recipe(WHOLE, studies=6, held_out=1)
    assert (first.epochs, last.epochs, last.last_epoch) == (5, 3, 3)
    assert first == replace(WHOLE, epochs=5)
    assert last.learning_rate == WHOLE.learning_rate / 2
    assert last.patience == 0 and not last.deep_supervision and last.seed != first.seed


@pytest.mark.parametrize(("studies", "held_out", "epochs"), [(20, 3, 8), (6, 0, 8), (6, 1, 5)])
def test_where_held_out_studies_are_not_missed_all_epochs_choose(studies, held_out, epochs):
    recipe = replace(WHOLE, epochs=epochs)
    assert split_recipe(recipe, studies=studies, held_out=held_out) == (recipe, None)


def test_the_stretch_learns_from_the_held_out_case_too(chosen, monkeypatch):
    seen = []
    monkeypatch.setattr(last_stretch, "fit", lambda *a, **options: seen.append(a[3:5]) or fit(*a, **options))
    _, last = split_recipe(WHOLE, studies=3, held_out=1)
    rows = []
    before = copies(chosen.network)
    result = run_last_stretch(chosen, last, on_epoch=rows.append)
    ((training, held_out),) = seen
    assert [id(case) for case in training] == [id(case) for case in (*chosen.training, *chosen.held_out)]
    assert held_out == ()
    assert [record.epoch for record in result.history] == [1, 2, 3, 4, 5, 6]
    assert result.history[:3] == chosen.result.history and list(result.history[3:]) == rows
    assert result.best_epoch == 6
    assert all(record.val_loss is None and record.dice["mean"] is None for record in rows)
    assert [record.seconds for record in result.history] == sorted(record.seconds for record in result.history)
    assert any(not torch.equal(before[name], tensor) for name, tensor in named_tensors(chosen.network).items())


def test_a_stretch_that_loses_is_thrown_away(chosen):
    """A step so large that it forgets what was learnt."""
    _, last = split_recipe(WHOLE, studies=3, held_out=1)
    before = copies(chosen.network)
    result = run_last_stretch(chosen, replace(last, learning_rate=3.0, clip_norm=1e3, warmup_steps=0))
    assert result.best_epoch == chosen.result.best_epoch
    assert all(torch.equal(before[name], tensor) for name, tensor in named_tensors(chosen.network).items())


def test_its_checkpoint_lies_beside_the_other():
    assert stretch_checkpoint(Path("out/training.checkpoint")) == Path("out/training-last.checkpoint")
