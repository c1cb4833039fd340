"""Few cases, the step that is kept, and what was forgotten: an improvement is one, or the global model stays."""

import dataclasses

import numpy as np
import pytest
import torch
from deltas import KEY, make_facts
from phantoms import make_case
from sites import NEW_SCANNER, write_cases

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.annotations.holdout import cross_fit
from dafne_dante.config import Settings
from dafne_dante.delta.compression import compressed
from dafne_dante.delta.decode import decode_delta
from dafne_dante.delta.difference import WeightUpdate, apply_updates, dense_value
from dafne_dante.delta.encode import encode_delta
from dafne_dante.errors import NotEnoughCasesError, TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model
from dafne_dante.plugin import improve as story
from dafne_dante.plugin import tuning
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.division import divide
from dafne_dante.plugin.improve import ImprovementRequest, Progress, improve
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.recipe import Recipe


def unseen(model):
    network = build_network(model.plan, model.weights)
    return evaluate_cases(network, model.plan, [make_case(seed, **NEW_SCANNER) for seed in (91, 92)])["mean"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_site_with_few_cases_improves_the_model_for_cases_nobody_saw(tmp_path, trained, count):
    said, epochs = [], []
    data = write_cases(tmp_path / "cases", range(30, 30 + count), **NEW_SCANNER)
    request = ImprovementRequest(
        data=CaseRequest((data,)), out=tmp_path / "out", base=trained / "base.model", epochs=5
    )  # fmt: skip
    progress = Progress(stage=said.append, epoch=lambda record, total: epochs.append((record.epoch, total)))
    summary = improve(request, Settings(folder=tmp_path / "configuration"), progress=progress)
    trainings = 3 if count == 1 else count + 1
    assert summary.gate == "passed"
    assert summary.cross_fit
    assert (summary.cases, summary.held_out) == (count, count)
    assert summary.step > 0
    assert [epoch for epoch, _ in epochs] == list(range(1, len(epochs) + 1))
    assert {total for _, total in epochs} == {5 * trainings}
    assert len(epochs) == 5 * (trainings - 1) + summary.best_epoch
    assert any("held out once" in words for words in said)
    base, improved = (read_model(path) for path in (trained / "base.model", request.out / "improved.model"))
    assert unseen(improved) > unseen(base) + 0.05
    manifest = decode_delta((request.out / "update.delta").read_bytes(), base=base.weights, trusted_keys=None).manifest
    assert manifest.cases == count
    assert len((request.out / "history.csv").read_text().splitlines()) == 1 + 5


def test_training_that_ruins_the_model_leaves_the_global_one(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(
        story, "recipe_for_adaptation",
        lambda *_, **__: Recipe(epochs=1, steps_per_epoch=6, learning_rate=3.0, warmup_steps=0),
    )  # fmt: skip
    monkeypatch.setattr(tuning, "_STEPS", (0.0, 1.0))
    request = ImprovementRequest(
        data=CaseRequest((trained / "new",)), out=tmp_path / "out", base=trained / "base.model", method="full"
    )
    summary = improve(request, Settings(folder=tmp_path / "configuration"))
    assert (summary.gate, summary.step, summary.uploaded) == ("failed", 0.0, False)
    assert "global model stays" in summary.gate_reason
    assert summary.dice_after == summary.dice_before
    base, improved = (read_model(path) for path in (trained / "base.model", request.out / "improved.model"))
    assert all(torch.equal(improved.weights[name], value) for name, value in base.weights.items())
    delta = decode_delta((request.out / "update.delta").read_bytes(), base=base.weights, trusted_keys=None)
    assert delta.updates == ()


def test_a_step_is_that_share_of_every_update():
    base = {"dense": torch.randn(3, 2), "low": torch.randn(4, 5), "still": torch.randn(2)}
    updates = (
        WeightUpdate("dense", torch.randn(3, 2)),
        WeightUpdate("low", LowRank("lora-linear", torch.randn(4, 2), torch.randn(2, 5), 2.0)),
    )
    whole = apply_updates(base, updates)
    for step in (0.0, 0.25, 1.0):
        part = apply_updates(base, tuning._scaled(updates, step))
        for name, value in base.items():
            torch.testing.assert_close(part[name], value + step * (whole[name] - value))


def test_the_best_step_is_that_of_all_folds_together_and_the_longer_one_of_equals():
    assert tuning._best_step([[0.5, 0.6, 0.7, 0.6, 0.5]]) == (0.5, 0.7)
    assert tuning._best_step([[0.5, 0.5, 0.5, 0.5, 0.5]]) == (1.0, 0.5)
    assert tuning._best_step([[0.5, 0.9, 0.1, 0.1, 0.1], [0.5, 0.0, 0.6, 0.6, 0.8]]) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("most_error", "precision"), [(0.2, "auto"), (3e-3, "float16"), (1e-6, "float32")], ids=["coarse", "fine", "exact"]
)
def test_the_form_ends_with_float16_and_float32_where_int8_costs_dice(most_error, precision):
    """A model in which a small error of its update costs all of the Dice."""
    draw = torch.Generator().manual_seed(0)
    meant = (WeightUpdate("low", torch.randn(40, 30, generator=draw)), WeightUpdate("norm", torch.randn(9)))

    def dice(updates):
        dense = [dense_value(one, tuple(whole.value.shape)) for one, whole in zip(updates, meant, strict=True)]
        errors = [
            float((one - whole.value).norm() / whole.value.norm()) for one, whole in zip(dense, meant, strict=True)
        ]
        return 0.9 if max(errors) <= most_error else 0.8

    form = tuning._form_allowed([dice], [meant], whole=0.9)
    assert form.precision == precision
    content = encode_delta(form.stored(compressed(meant, form.residual)), make_facts(), KEY)
    shapes = {one.weight: tuple(one.value.shape) for one in meant}
    received = sorted(decode_delta(content, base=None, trusted_keys=None).updates, key=lambda one: one.weight)
    assert dice([WeightUpdate(one.weight, dense_value(one, shapes[one.weight])) for one in received]) == 0.9


def test_what_was_forgotten_is_told(tmp_path, trained):
    reference = write_cases(tmp_path / "reference", [70, 71])
    request = ImprovementRequest(
        data=CaseRequest((trained / "new",)), out=tmp_path / "out", base=trained / "base.model", epochs=2,
        reference=(reference,),
    )  # fmt: skip
    summary = improve(request, Settings(folder=tmp_path / "configuration"))
    cases = [make_case(seed) for seed in (70, 71)]
    for path, told in (
        (trained / "base.model", summary.reference_before),
        (request.out / "improved.model", summary.reference_after),
    ):
        model = read_model(path)
        assert told == pytest.approx(evaluate_cases(build_network(model.plan, model.weights), model.plan, cases))
    without = improve(dataclasses.replace(request, reference=()), Settings(folder=tmp_path / "configuration"))
    assert without.reference_before is without.reference_after is None


def test_few_studies_are_each_held_out_once_and_many_are_divided():
    cases = [make_case(seed) for seed in range(5)]
    for count in (2, 3):
        folds = cross_fit(cases[:count], seed=1)
        held = [case.case_id for _, out in folds for case in out]
        assert sorted(held) == sorted(case.case_id for case in cases[:count])
        for training, out in folds:
            ids = {case.case_id for case in training}
            assert len(ids) == count - 1
            assert not ids & {case.case_id for case in out}
    assert divide(cases[:3], seed=0).is_cross_fit
    assert not divide(cases[:4], seed=0).is_cross_fit
    assert divide(cases, seed=0).words == "4 cases to learn from, 1 held out"


@pytest.mark.parametrize("labelled", [[3, 4, 9, 11, 12], [0, 15], list(range(16))])
def test_one_study_is_halved_by_what_was_labelled(labelled):
    case = make_case(1)
    annotated = np.isin(np.arange(len(case.annotated)), labelled)
    case = dataclasses.replace(
        case, annotated=annotated, segmentation=np.where(annotated, case.segmentation, 0).astype(np.uint8)
    )
    (below, above), (second, first) = cross_fit([case], seed=0)
    assert (below[0].annotated == first[0].annotated).all()
    assert (above[0].annotated == second[0].annotated).all()
    assert (below[0].annotated ^ above[0].annotated == annotated).all()
    counts = [int(half[0].annotated.sum()) for half in (below, above)]
    assert min(counts) >= len(labelled) // 2
    assert np.flatnonzero(below[0].annotated).max() < np.flatnonzero(above[0].annotated).min()


@pytest.mark.parametrize("labelled", [[], [3]])
def test_fewer_than_two_labelled_slices_are_too_few(labelled):
    case = make_case(1)
    annotated = np.isin(np.arange(len(case.annotated)), labelled)
    case = dataclasses.replace(case, annotated=annotated, segmentation=np.zeros_like(case.segmentation))
    with pytest.raises(NotEnoughCasesError, match="at least 2 labelled slices"):
        cross_fit([case], seed=0)
    with pytest.raises(NotEnoughCasesError):
        cross_fit([], seed=0)


def test_a_last_epoch_beyond_the_schedule_is_refused():
    with pytest.raises(TrainingError, match="last epoch from 0 to 3, found 4"):
        Recipe(epochs=3, last_epoch=4)
