"""Another set of labels for a model: what stays, stays bit for bit, and predicts as before."""

import dataclasses
import json
from uuid import uuid4

import pytest
import torch
from limbs import limb_plan

from dafne_dante.errors import IncompatibleModelError
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model, write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.relabel import relabelled
from dafne_dante.models.stock_functions import stock_metadata, stock_sources

LABELS = ("biceps", "flexor", "triceps")
PLANS = {
    "unet2d": dataclasses.replace(limb_plan(2), labels=LABELS),
    "unet3d": dataclasses.replace(limb_plan(3), labels=LABELS),
    "dynunet": ModelPlan(
        "dynunet", LABELS, 1, (16, 16, 16), (1.0,) * 3, (16, 16, 16),
        kernels=((3, 3, 3),) * 3, strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)), levels=0,
    ),
}  # fmt: skip


def make_model(plan):
    torch.manual_seed(5)
    weights = build_network(plan).state_dict()
    return GlobalModel(uuid4(), 1, plan, weights, stock_metadata(plan), stock_sources(plan))


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_another_order_of_the_same_labels_gives_the_same_logits_elsewhere(plan):
    model = make_model(plan)
    turned = relabelled(model, LABELS[::-1])
    image = torch.randn(1, 1, *(32,) * plan.dimensions)
    with torch.inference_mode():
        before, after = (build_network(one.plan, one.weights)(image) for one in (model, turned))
    torch.testing.assert_close(after[:, [0, 3, 2, 1]], before, atol=1e-5, rtol=1e-5)
    assert turned.model_id != model.model_id
    assert turned.plan.labels == LABELS[::-1]


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("labels", [("flexor",), ("new", "triceps", "flexor", "other", "biceps")])
def test_rows_of_labels_that_stay_are_kept_and_everything_else_is_as_it_was(plan, labels):
    model = make_model(plan)
    other = relabelled(model, labels)
    fresh = build_network(other.plan).state_dict()
    changed = [name for name in fresh if fresh[name].shape != model.weights[name].shape]
    assert changed
    for name in fresh.keys() - set(changed):
        assert torch.equal(other.weights[name], model.weights[name])
    values = {0: 0, **{1 + labels.index(name): 1 + LABELS.index(name) for name in labels if name in LABELS}}
    for name in changed:
        new, old = other.weights[name], model.weights[name]
        axes = [axis for axis, (one, two) in enumerate(zip(new.shape, old.shape, strict=True)) if one != two]
        for index, source in values.items():
            for second, other_source in values.items() if len(axes) == 2 else [(0, 0)]:
                ours, theirs = new.select(axes[0], index), old.select(axes[0], source)
                if len(axes) == 2:
                    ours, theirs = ours.select(axes[1] - 1, second), theirs.select(axes[1] - 1, other_source)
                assert torch.equal(ours, theirs), name


def test_the_file_is_a_model_like_any_other_and_drawing_is_repeatable(tmp_path):
    model = make_model(PLANS["unet3d"])
    first, second = (relabelled(model, ("flexor", "new"), seed=4) for _ in range(2))
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    state = torch.get_rng_state()
    relabelled(model, ("new",))
    assert torch.equal(torch.get_rng_state(), state), "nobody else's chance is used"
    write_model(first, tmp_path / "a.model")
    assert read_model(tmp_path / "a.model").plan.labels == ("flexor", "new")


@pytest.mark.parametrize("labels", [(), ("a", "a")])
def test_no_labels_and_doubles_are_refused(labels):
    with pytest.raises(IncompatibleModelError, match="different labels, at least one"):
        relabelled(make_model(PLANS["unet2d"]), labels)


def test_the_command_says_what_is_known_and_refuses_doubles(command, tmp_path):
    model = make_model(PLANS["unet2d"])
    write_model(model, tmp_path / "old.model")
    options = ("--model", tmp_path / "old.model", "--out", tmp_path / "new.model")
    code, out, _ = command("relabel", *options, "--label", "triceps", "--label", "new", "--json")
    assert code == 0
    assert json.loads(out)["kept"] == ["triceps"]
    assert read_model(tmp_path / "new.model").plan.labels == ("triceps", "new")
    code, out, err = command("relabel", *options, "--label", "a", "--label", "a")
    assert (code, out) == (1, "")
    assert "different labels" in err
