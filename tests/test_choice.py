"""What auto chooses, and that it says why; and that a resumed improvement keeps the choice it was begun with."""

import json

import pytest
import torch
from phantoms import make_case, tiny_plan

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.errors import TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.stock_functions import stock_metadata, stock_sources
from dafne_dante.plugin.choosing import CHOICE, choice_for, situation_of
from dafne_dante.plugin.division import divide
from dafne_dante.training.choice import Situation, choose
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
        (Situation(8, 0.4, 12.0, 2.5), "gradual-unfreezing, because 8 studies to learn from are enough for it; larger "
         "steps over 10 epochs (of 20, to keep to 2.5 minutes), because the global model comes to Dice 0.40 as it is"),
    ],
)  # fmt: skip
def test_one_sentence_says_why(situation, why):
    assert choose(situation).why == why


@pytest.mark.parametrize(
    ("seconds", "minutes", "trainings", "epochs"),
    [(12.0, 2.5, 1, 10), (12.0, 2.5, 2, 5), (12.0, 100.0, 1, 15), (1000.0, 0.1, 5, 3), (12.0, None, 1, 15)],
)
def test_a_budget_shortens_training_and_leaves_three_epochs(seconds, minutes, trainings, epochs):
    assert choose(Situation(8, 0.8, seconds, minutes, trainings)).epochs == epochs


def test_what_is_known_before_training():
    plan = tiny_plan()
    torch.manual_seed(0)
    weights = plain_weights(build_network(plan))
    base = GlobalModel(None, 0, plan, weights, stock_metadata(plan), stock_sources(plan))
    few = divide([make_case(1), make_case(2)], seed=0)
    known = situation_of(base, few, 0.5, minutes=None, batch_size=2)
    assert known == Situation(2, 0.5, 0.0, None, 3)
    timed = situation_of(base, divide([make_case(seed) for seed in range(5)], seed=0), 0.5, minutes=1.0, batch_size=2)
    assert (timed.studies, timed.trainings, timed.minutes) == (4, 1, 1.0)
    assert timed.epoch_seconds > 0


def test_the_choice_is_kept_for_who_goes_on(tmp_path):
    first = choice_for(tmp_path / "out", lambda: Situation(8, 0.8, 12.0, 1.0), resume=False)
    assert choice_for(tmp_path / "out", lambda: Situation(8, 0.8, 1.0, 1.0), resume=True) == first
    assert choice_for(tmp_path / "out", lambda: Situation(8, 0.8, 1.0, 1.0), resume=False) != first
    assert choice_for(tmp_path / "other", lambda: Situation(1, 0.8), resume=True) == choose(Situation(1, 0.8))
    assert not (tmp_path / "other").exists(), "without a budget there is nothing to remember"


@pytest.mark.parametrize(
    "change", [{"method": "magic"}, {"rank": 0}, {"epochs": 10**9}, {"epochs": None}, {"learning_rate": "x"}]
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
