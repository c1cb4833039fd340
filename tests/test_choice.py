"""What auto chooses, and that it says why; and that a resumed improvement keeps the choice it was begun with."""

import json

import pytest
import torch
from phantoms import make_case, tiny_plan

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.errors import TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.predict import predict_segmentation
from dafne_dante.models.stock_functions import stock_metadata, stock_sources
from dafne_dante.plugin import division
from dafne_dante.plugin.choosing import CHOICE, choice_for, situation_of, step_seconds
from dafne_dante.plugin.division import divide, measure_folds
from dafne_dante.training.choice import Situation, choose, is_too_short
from dafne_dante.training.defaults import LEARNING_RATES, recipe_for_adaptation
from dafne_dante.training.hardware import Numerics


@pytest.mark.parametrize(
    ("studies", "zero_shot", "method", "rank", "start", "epochs"),
    [
        (1, 0.7, "lora", 4, "good", 15),
        (4, 0.3, "lora", 4, "poor", 20),
        (5, 0.5, "gradual-unfreezing", 8, "good", 15),
        (20, 0.49, "gradual-unfreezing", 8, "poor", 20),
        (21, 0.9, "gradual-unfreezing", 16, "good", 15),
        (1, 0.14, "gradual-unfreezing", 4, "new", 30),
        (9, 0.0, "gradual-unfreezing", 8, "new", 30),
    ],
)
def test_the_choice_follows_from_cases_and_start(studies, zero_shot, method, rank, start, epochs):
    choice = choose(Situation(studies, zero_shot))
    assert (choice.method, choice.rank, choice.epochs) == (method, rank, epochs)
    assert choice.learning_rate == LEARNING_RATES[method][start]
    recipe = recipe_for_adaptation(method, zero_shot, epochs=None, seed=0, numerics=Numerics())
    assert recipe.learning_rate == choice.learning_rate, "a method by name has the rate that auto would give it"


@pytest.mark.parametrize(("method", "share"), [("gradual-unfreezing", 0.25), ("lora", 0.5), ("full", 1.0)])
def test_in_two_dimensions_new_structures_are_learned_with_smaller_steps(method, share):
    for zero_shot, expected in ((0.0, share), (0.3, 1.0), (0.8, 1.0)):
        wish = {"epochs": None, "seed": 0, "numerics": Numerics()}
        flat = recipe_for_adaptation(method, zero_shot, dimensions=2, **wish)
        assert flat.learning_rate == expected * recipe_for_adaptation(method, zero_shot, **wish).learning_rate
    flat = choose(Situation(9, 0.0, dimensions=2))
    assert flat.learning_rate == 0.25 * choose(Situation(9, 0.0)).learning_rate


@pytest.mark.parametrize(
    ("situation", "why"),
    [
        (Situation(1, 0.7), "lora, because there is only 1 study to learn from; small steps over 15 epochs, because "
         "the global model comes to Dice 0.70 as it is"),
        (Situation(3, 0.01), "gradual-unfreezing, because the model never saw what it is to find; the largest steps "
         "over 30 epochs, because the global model comes to Dice 0.01 as it is"),
        (Situation(8, 0.4, 0.6, 2.5), "gradual-unfreezing, because 8 studies to learn from are enough for it; larger "
         "steps over 10 epochs (of 20, to keep to 2.5 minutes), because the global model comes to Dice 0.40 as it is"),
    ],
)  # fmt: skip
def test_one_sentence_says_why(situation, why):
    assert choose(situation).why == why


@pytest.mark.parametrize(
    ("seconds", "minutes", "trainings", "epochs"),
    [(0.6, 2.5, 1, 10), (0.6, 2.5, 2, 5), (0.6, 100.0, 1, 15), (50.0, 0.1, 5, 3), (0.6, None, 1, 15)],
)
def test_a_budget_shortens_training_and_leaves_three_epochs(seconds, minutes, trainings, epochs):
    assert choose(Situation(8, 0.8, seconds, minutes, trainings)).epochs == epochs


@pytest.mark.parametrize(("minutes", "steps"), [(2.5, 20), (0.5, 13), (0.2, 5), (0.01, 5)])
def test_a_short_budget_shortens_the_three_epochs_too_but_leaves_five_steps(minutes, steps):
    choice = choose(Situation(8, 0.8, 0.6, minutes))
    assert choice.steps == steps
    assert (f"of {steps} steps" in choice.why) == (steps < 20)


def test_a_budget_that_is_too_short_for_three_trainings_may_do_for_one():
    assert is_too_short(0.3, 0.6, 3) and not is_too_short(0.3, 0.6, 1)
    assert not is_too_short(0.6, 0.6, 3) and is_too_short(0.6, 0.6, 3, replay=4 / 3)


def test_steps_for_replayed_cases_are_part_of_the_budget():
    without, with_them = (choose(Situation(8, 0.8, 0.6, 2.5, replay=replay)) for replay in (1.0, 4 / 3))
    assert (without.epochs, with_them.epochs) == (10, 7)


def test_one_training_learns_from_one_fold_and_measures_on_what_that_holds_out():
    one = divide([make_case(1)], seed=0).first_fold()
    assert (len(one.folds), one.is_cross_fit, one.learned_from, one.held_out) == (1, False, 1, 1)
    assert "half of the labelled slices" in one.words
    assert divide([make_case(1), make_case(2)], seed=0).first_fold().words == "1 case to learn from, 1 held out"


def test_both_halves_of_a_study_are_predicted_once(monkeypatch):
    plan = tiny_plan()
    network = build_network(plan)
    asked = []

    def counted(*arguments):
        asked.append(arguments)
        return predict_segmentation(*arguments)

    monkeypatch.setattr(division, "predict_segmentation", counted)
    both = divide([make_case(1)], seed=0)
    found = measure_folds([network, network], plan, both)
    assert len(asked) == 1
    assert measure_folds([network, build_network(plan, plain_weights(network))], plan, both) == found
    assert len(asked) == 3


def test_what_is_known_before_training():
    plan = tiny_plan()
    torch.manual_seed(0)
    weights = plain_weights(build_network(plan))
    base = GlobalModel(None, 0, plan, weights, stock_metadata(plan), stock_sources(plan))
    few = divide([make_case(1), make_case(2)], seed=0)
    known = situation_of(base, few, 0.5)
    assert known == Situation(2, 0.5, 0.0, None, 3)
    timed = situation_of(base, divide([make_case(seed) for seed in range(5)], seed=0), 0.5, minutes=1.0, step_s=0.3)
    assert (timed.studies, timed.trainings, timed.minutes) == (4, 1, 1.0)
    assert timed.step_seconds == 0.3
    assert 0 < step_seconds(base, 2) < 60


def test_the_choice_is_kept_for_who_goes_on(tmp_path):
    first = choice_for(tmp_path / "out", lambda: Situation(8, 0.8, 0.6, 1.0), resume=False)
    assert choice_for(tmp_path / "out", lambda: Situation(8, 0.8, 0.05, 1.0), resume=True) == first
    assert choice_for(tmp_path / "out", lambda: Situation(8, 0.8, 0.05, 1.0), resume=False) != first
    assert choice_for(tmp_path / "other", lambda: Situation(1, 0.8), resume=True) == choose(Situation(1, 0.8))
    assert not (tmp_path / "other").exists(), "without a budget there is nothing to remember"


@pytest.mark.parametrize(
    "change",
    [
        {"method": "magic"},
        {"rank": 0},
        {"epochs": 10**9},
        {"epochs": None},
        {"learning_rate": "x"},
        {"steps": 0},
        {"steps": None},
    ],
)
def test_a_damaged_choice_is_refused(tmp_path, change):
    choice_for(tmp_path, lambda: Situation(8, 0.8, 1.0, 9.0), resume=False)
    kept = json.loads((tmp_path / CHOICE).read_text())
    (tmp_path / CHOICE).write_text(json.dumps(kept | change))
    with pytest.raises(TrainingError, match=CHOICE):
        choice_for(tmp_path, lambda: Situation(8, 0.8), resume=True)
    (tmp_path / CHOICE).write_text("[" * 5000)
    with pytest.raises(TrainingError, match=CHOICE):
        choice_for(tmp_path, lambda: Situation(8, 0.8), resume=True)
