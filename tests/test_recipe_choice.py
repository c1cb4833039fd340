"""What a person may choose of how an improvement is trained: it reaches the training, defaults stay as they were."""

import pytest
from sites import NEW_SCANNER, write_cases

from dafne_dante.config import Settings
from dafne_dante.errors import TrainingError
from dafne_dante.plugin import trainings
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import improve
from dafne_dante.plugin.improvement_request import ImprovementRequest
from dafne_dante.plugin.recipe_choice import as_chosen
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.defaults import adaptation_patience
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.loop import FitResult
from dafne_dante.training.recipe import Recipe


def wish(tmp_path, **choices):
    return ImprovementRequest(CaseRequest((tmp_path / "cases",)), tmp_path / "out", tmp_path / "base.model", **choices)


def test_defaults_are_plain_changes_no_mean_and_a_late_end(tmp_path):
    recipe = as_chosen(Recipe(epochs=30), wish(tmp_path))
    assert (recipe.augmentation, recipe.average_decay, recipe.patience) == (Strengths(), 0.0, 15)
    assert as_chosen(Recipe(epochs=30), wish(tmp_path), several=True).patience == 0, "epochs are compared one by one"
    assert [adaptation_patience(epochs) for epochs in (1, 8, 15, 17, 100)] == [8, 8, 8, 9, 50]


def test_what_was_chosen_is_taken(tmp_path):
    asked = wish(tmp_path, patience=3, average=0.9, augmentation="strong", steps=7)
    for several in (False, True):
        recipe = as_chosen(Recipe(epochs=30), asked, several=several)
        assert (recipe.patience, recipe.average_decay, recipe.steps_per_epoch) == (3, 0.9, 7)
        assert recipe.augmentation == Strengths(1.0, 1.0, 1.0, mirror=True)
    assert as_chosen(Recipe(epochs=30), wish(tmp_path, patience=0)).patience == 0


WRONG = {
    "patience": ({"patience": -1}, "a patience from 0, found -1"),
    "average": ({"average": 1.0}, "from 0 to below 1, found 1"),
    "augmentation": ({"augmentation": "wild"}, "plain, strong, found wild"),
}


@pytest.mark.parametrize(("choices", "words"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_told_before_anything_is_read(tmp_path, choices, words):
    with pytest.raises(TrainingError, match=words):
        improve(wish(tmp_path, **choices), Settings(folder=tmp_path / "configuration"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [1, 4])
def test_the_command_hands_them_to_every_training(command, trained, tmp_path, monkeypatch, count):
    """One study makes three trainings, four make one."""
    seen = []

    def watched(network, plan, method, training, held_out, *, recipe, **options):
        seen.append(recipe)
        return FitResult((EpochRecord(1, 1.0, 1.0, 0.5, {"mean": 0.5, "ball": 0.5, "box": 0.5}, 1, 1e-3),), 1)

    monkeypatch.setattr(trainings, "fit", watched)
    data = write_cases(tmp_path / "cases", range(30, 30 + count), **NEW_SCANNER)
    code, _, told = command(
        "improve", "--data", data, "--base", trained / "base.model", "--out", tmp_path / "out", "--patience", 4,
        "--average", 0.9, "--augmentation", "strong", "--epochs", 9,
    )  # fmt: skip
    assert code == 0, told
    assert len(seen) == (3 if count == 1 else 1)
    assert {(one.patience, one.average_decay, one.augmentation.spatial) for one in seen} == {(4, 0.9, 1.0)}


def test_an_augmentation_that_nobody_knows_is_told_by_the_command(command, tmp_path):
    code, _, told = command(
        "improve", "--data", tmp_path, "--base", tmp_path / "b.model", "--out", tmp_path / "o", "--augmentation", "wild"
    )
    assert code == 2 and "plain, strong" in told
