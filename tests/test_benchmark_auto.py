"""The method auto in the benchmark: what it chooses, with replay where labels allow it, and at the best step."""

from dataclasses import replace
from pathlib import Path

import pytest
from phantoms import tiny_plan
from tiny_benchmark import request

from dafne_dante.benchmark import own_methods
from dafne_dante.benchmark.own_methods import OwnMethods
from dafne_dante.benchmark.pretraining import lesson_for, pretrain
from dafne_dante.benchmark.protocol import Cell
from dafne_dante.benchmark.splits import split_cases
from dafne_dante.models.file import read_model
from dafne_dante.models.relabel import relabelled
from dafne_dante.training.defaults import LEARNING_RATES
from dafne_dante.training.joined import JoinedCases
from dafne_dante.training.loop import fit

CELL = Cell("one", 1, "rich", "auto", 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A request, its split and its base."""
    folder: Path = tmp_path_factory.mktemp("auto")
    wanted = request(folder / "out")
    lesson = lesson_for(
        wanted.source, tiny_plan(), replace(wanted.effort, pretraining_epochs=6), seed=0, pretraining="rich"
    )
    pretrain(folder / "base.model", lesson, folder / "cache")
    split = split_cases(wanted.source, wanted.targets["one"], seed=0, shots=1, pretraining="rich")
    return folder, wanted, split, read_model(folder / "base.model")


@pytest.fixture
def watched(monkeypatch):
    seen = []

    def watch(network, plan, method, training, held_out, **options):
        turns = len(training.turns) if isinstance(training, JoinedCases) else len(training)
        seen.append((method.name, turns, options["recipe"].learning_rate))
        return fit(network, plan, method, training, held_out, **options)

    monkeypatch.setattr(own_methods, "fit", watch)
    return seen


def test_it_learns_from_what_the_operator_ships_too(place, watched):
    folder, wanted, split, base = place
    assert len(split.replay) == 2
    outcome = OwnMethods(wanted.effort, folder / "cache").run(CELL, split, base, folder)
    ((name, drawn, rate),) = watched
    assert drawn == 2 + 2, "its one study as often as makes half of the draws"
    assert rate in LEARNING_RATES[name].values()
    assert outcome.sent_bytes > 0 and outcome.source_after is not None


def test_with_other_labels_nothing_is_replayed(place, watched):
    folder, wanted, split, base = place
    other = relabelled(base, ("ball", "cube"), seed=0)
    outcome = OwnMethods(wanted.effort, folder / "cache").run(CELL, split, other, folder)
    assert [drawn for _, drawn, _ in watched] == [1]
    assert outcome.source_before is outcome.source_after is None


def test_a_step_that_does_not_help_is_not_taken(place, monkeypatch):
    folder, wanted, split, base = place
    monkeypatch.setattr(
        own_methods, "recipe_for_adaptation",
        lambda *args, **options: replace(recipe(*args, **options), learning_rate=3.0),
    )  # fmt: skip
    outcome = OwnMethods(wanted.effort, folder / "cache").run(CELL, split, base, folder)
    assert outcome.dice["mean"] == pytest.approx(outcome.zero_shot)
    fixed = OwnMethods(wanted.effort, folder / "cache").run(replace(CELL, method="full"), split, base, folder)
    assert fixed.dice["mean"] < outcome.dice["mean"]


recipe = own_methods.recipe_for_adaptation
