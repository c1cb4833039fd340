"""The training loop on small made-up heads: it learns, repeats, restores its best epoch and stops on nonsense."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import LABELS, make_case, tiny_plan

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.method import METHOD_NAMES, method_named
from dafne_dante.errors import IncompatibleModelError, NotEnoughCasesError, TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.global_model import digest_weights
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import Numerics
from dafne_dante.training.held_out import HeldOutWindows
from dafne_dante.training.history import EpochRecord, write_history
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.sampling import PatchSampler

PLAN = tiny_plan()
FAST = Recipe(epochs=3, steps_per_epoch=8, learning_rate=1e-2, warmup_steps=2)


def fresh(seed=0):
    torch.manual_seed(seed)
    return build_network(PLAN)


def train(method="full", recipe=FAST, network=None, cases=(1, 2), held_out=(9,), seen=None):
    network = network or fresh()
    training, validation = (prepare_cases([make_case(seed) for seed in seeds], PLAN) for seeds in (cases, held_out))
    result = fit(
        network,
        PLAN,
        method_named(method),
        training,
        validation,
        recipe=recipe,
        on_epoch=lambda record: seen.append(record) if seen is not None else None,
    )
    return network, result


def test_training_from_scratch_learns():
    network = fresh()
    before = evaluate_cases(network, PLAN, [make_case(9)])["mean"]
    train(network=network, recipe=Recipe(epochs=6, steps_per_epoch=12, learning_rate=1e-2))
    after = evaluate_cases(network, PLAN, [make_case(9)])["mean"]
    assert after > before + 0.3


def test_one_seed_gives_one_result():
    digests = {digest_weights(plain_weights(train()[0])) for _ in range(2)}
    assert len(digests) == 1
    other = train(recipe=Recipe(epochs=3, steps_per_epoch=8, learning_rate=1e-2, warmup_steps=2, seed=1))[0]
    assert digest_weights(plain_weights(other)) not in digests


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_reports_what_moves_and_keeps_its_best_epoch(method):
    seen = []
    network, result = train(method, seen=seen)
    assert [record.epoch for record in seen] == [1, 2, 3]
    assert list(result.history) == seen
    total = sum(parameter.numel() for parameter in build_network(PLAN).parameters())
    live = [record.trainable_parameters for record in seen]
    assert all(0 < count <= total for count in live) if method != "lora" else live[0] > 0
    if method == "gradual-unfreezing":
        assert live == sorted(live)
        assert live[0] < total
    best = max(seen, key=lambda record: (record.dice["mean"], -record.val_loss))
    assert result.best_epoch == best.epoch
    _, dice = HeldOutWindows(prepare_cases([make_case(9)], PLAN), PLAN).measure(network)
    assert dice["mean"] == pytest.approx(best.dice["mean"], abs=1e-6)


def test_a_later_worse_epoch_is_not_kept():
    """A learning rate that ruins the network: the kept epoch is the best one, not the last."""
    network, result = train(recipe=Recipe(epochs=4, steps_per_epoch=6, learning_rate=0.3, warmup_steps=1))
    dice = [record.dice["mean"] for record in result.history]
    assert dice[result.best_epoch - 1] == max(dice)
    _, kept = HeldOutWindows(prepare_cases([make_case(9)], PLAN), PLAN).measure(network)
    assert kept["mean"] == pytest.approx(max(dice), abs=1e-6)


def test_a_loss_that_is_not_finite_stops_training():
    network = fresh()
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="finite loss"):
        train(network=network)


class Overflow(torch.autograd.Function):
    """Gives what it gets, and a gradient of infinities."""

    @staticmethod
    def forward(context, tensor):
        return tensor.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("inf")


def test_a_step_whose_gradient_bfloat16_cannot_hold_is_taken_in_float32():
    plain, _ = train(recipe=FAST)
    network, spoiled = fresh(), []

    def spoil(module, inputs, output):
        if not torch.is_autocast_enabled("cpu"):
            return output
        spoiled.append(module)
        return Overflow.apply(output)

    handle = network.register_forward_hook(spoil)
    train(network=network, recipe=replace(FAST, numerics=Numerics(bfloat16=True)))
    handle.remove()
    assert len(spoiled) == 3 * 8
    assert digest_weights(plain_weights(network)) == digest_weights(plain_weights(plain))


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"epochs": 0}, "at least one epoch"),
        ({"steps_per_epoch": 0}, "at least one epoch"),
        ({"batch_size": 0}, "at least one epoch"),
        ({"average_decay": 1.0}, "decay of the average"),
        ({"schedule": "linear"}, "cosine or poly"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(choice, told):
    with pytest.raises(TrainingError, match=told):
        Recipe(**choice)


def test_cases_with_other_labels_or_contrasts_are_refused():
    case = make_case(1)
    with pytest.raises(IncompatibleModelError, match="expected cases labelled a, found ball, box"):
        prepare_cases([case], tiny_plan(labels=("a",)))
    two = type(case)(
        case.case_id, np.concatenate([case.image] * 2), case.segmentation, case.annotated, case.affine, LABELS
    )
    with pytest.raises(IncompatibleModelError, match="found 2"):
        prepare_cases([two], PLAN)
    with pytest.raises(NotEnoughCasesError):
        evaluate_cases(fresh(), PLAN, [])


def test_patches_come_from_known_slices_and_padding_is_unknown():
    annotated = np.zeros(16, bool)
    annotated[6:9] = True
    case = prepare_cases([make_case(3, annotated=annotated)], PLAN)
    sampler = PatchSampler(case, PLAN, seed=0)
    for _ in range(20):
        batch = sampler.draw(2)
        assert batch.image.shape == (2, 1, 16, 16, 16)
        assert batch.known.flatten(1).any(dim=1).all()
        assert not batch.image[batch.known[:, None]].eq(0).all()
        known_slices = batch.known.any(dim=(2, 3)).sum(dim=1)
        assert known_slices.le(3).all()
    with pytest.raises(NotEnoughCasesError):
        PatchSampler(prepare_cases([make_case(3, annotated=np.zeros(16, bool))], PLAN), PLAN, seed=0)


def test_slices_nobody_labelled_teach_nothing():
    """Wrong labels on slices that are not annotated leave training bit for bit as it was."""
    annotated = np.zeros(16, bool)
    annotated[3:12] = True
    results = []
    for wrong in (0, 1):
        case = make_case(4, annotated=annotated)
        case.segmentation[..., ~annotated] = wrong
        network = fresh()
        recipe = Recipe(epochs=1, steps_per_epoch=4, learning_rate=1e-2)
        fit(network, PLAN, method_named("full"), prepare_cases([case], PLAN), [], recipe=recipe)
        results.append(digest_weights(plain_weights(network)))
    assert results[0] == results[1]


def test_history_has_the_promised_columns(tmp_path):
    record = EpochRecord(1, 2.5, 0.5, None, {"mean": 0.25, "ball": 0.5, "box": None}, 10, 1e-3)
    write_history(tmp_path / "history.csv", [record], LABELS)
    with (tmp_path / "history.csv").open() as stream:
        rows = list(csv.reader(stream))
    dice = ["dice_mean", "dice_ball", "dice_box"]
    assert rows == [
        ["epoch", "seconds", "train_loss", "val_loss", *dice, "trainable_parameters", "learning_rate"],
        ["1", "2.500", "0.500000", "", "0.250000", "0.500000", "", "10", "0.001"],
    ]
