"""Differences: what moved and nothing else, and back again."""

import math

import pytest
import torch
from deltas import low_rank, make_base, make_updates
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_update

from dafne_dante.adaptation.low_rank import FORMS, LowRank, rebuild
from dafne_dante.delta.difference import (
    WeightUpdate,
    apply_updates,
    dense_value,
    factor_norm,
    relative_norm,
    take_difference,
    update_norm,
)
from dafne_dante.errors import DeltaShapeError, DeltaValueError


def tuned_from(base, **moves):
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    for name, move in moves.items():
        tuned[name.replace("__", ".")] += move
    return tuned


def test_only_what_moved_is_taken_in_the_order_of_the_base():
    base = make_base()
    factors = low_rank("lora-channel", (6, 4, 3, 3), 2)
    tuned = tuned_from(base, conv__weight=rebuild(factors, (6, 4, 3, 3)), slope=torch.tensor(0.5))
    tuned["norm.num_batches_tracked"] += 40
    updates = take_difference(base, tuned, {"conv.weight": factors})
    assert [update.weight for update in updates] == ["conv.weight", "slope"]
    assert isinstance(updates[0].value, LowRank)
    assert torch.equal(updates[0].value.a, factors.a)
    assert updates[0].value.a is not factors.a
    assert torch.equal(updates[1].value, torch.tensor(0.5))


def test_factors_whose_product_is_zero_are_left_out():
    base = make_base()
    idle = low_rank("lora-linear", (5, 6), 2)
    idle.b.zero_()
    assert take_difference(base, tuned_from(base), {"linear.weight": idle}) == ()
    # A weight that moved all the same is not lost.
    updates = take_difference(base, tuned_from(base, linear__weight=1.0), {"linear.weight": idle})
    assert isinstance(updates[0].value, torch.Tensor)


def test_difference_and_application_are_inverse():
    base = make_base()
    tuned = tuned_from(base, conv__weight=0.25, conv__bias=-0.5)
    again = apply_updates(base, take_difference(base, tuned, {}))
    assert list(again) == list(base)
    for name in base:
        torch.testing.assert_close(again[name], tuned[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_base_keeps_its_dtype_and_its_numbers(dtype):
    base = {"w": torch.randn(3, 4).to(dtype), "n": torch.tensor(7)}
    before = {name: tensor.clone() for name, tensor in base.items()}
    result = apply_updates(base, [WeightUpdate("w", torch.full((3, 4), 0.5))], step=0.5)
    expected = (before["w"].to(torch.promote_types(dtype, torch.float32)) + 0.25).to(dtype)
    assert result["w"].dtype == dtype
    assert torch.equal(result["w"], expected)
    result["n"] += 1
    assert all(torch.equal(base[name], before[name]) for name in base)


def test_a_zero_step_changes_no_bit():
    base = {**make_base(), "double": torch.tensor([1 / 3], dtype=torch.float64)}
    updates = (*make_updates(), WeightUpdate("double", torch.tensor([5.0])))
    assert all(torch.equal(tensor, base[name]) for name, tensor in apply_updates(base, updates, step=0.0).items())


@pytest.mark.parametrize("form", FORMS)
def test_lengths_and_dense_forms_equal_the_slow_formula(form):
    shape = (5, 4) if form == "lora-linear" else (5, 4, 3, 2)
    update = WeightUpdate("w", low_rank(form, shape, 3))
    slow = slow_update(update.value, shape)
    torch.testing.assert_close(dense_value(update, shape).double(), slow, rtol=1e-5, atol=1e-7)
    assert factor_norm(update.value) == pytest.approx(float(slow.norm()), rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), factor=st.floats(0.1, 10))
def test_the_length_is_that_of_all_numbers_together(sizes, factor):
    base = {str(index): torch.ones(size) * 2 for index, size in enumerate(sizes)}
    updates = [WeightUpdate(name, torch.full_like(tensor, factor)) for name, tensor in base.items()]
    assert update_norm(updates, base) == pytest.approx(factor * math.sqrt(sum(sizes)), rel=1e-6)
    assert relative_norm(updates, base) == pytest.approx(factor / 2, rel=1e-6)


def test_a_relative_length_needs_a_base_with_a_length():
    base = {"w": torch.zeros(3)}
    assert relative_norm([], base) == 0
    assert relative_norm([WeightUpdate("w", torch.ones(3))], base) == math.inf


@pytest.mark.parametrize(
    "edit",
    [
        lambda tuned: tuned.pop("slope"),
        lambda tuned: tuned.update(extra=torch.ones(1)),
        lambda tuned: tuned.update({"conv.bias": torch.ones(7)}),
        lambda tuned: tuned.update({"conv.bias": torch.ones(6, dtype=torch.float64)}),
    ],
    ids=["missing", "extra", "shape", "dtype"],
)
def test_weights_that_are_not_the_bases(edit):
    tuned = tuned_from(make_base())
    edit(tuned)
    with pytest.raises(DeltaShapeError):
        take_difference(make_base(), tuned, {})


@pytest.mark.parametrize(
    "update",
    [
        WeightUpdate("unknown", torch.ones(3)),
        WeightUpdate("norm.num_batches_tracked", torch.tensor(1.0)),
        WeightUpdate("conv.bias", torch.ones(5)),
        WeightUpdate("conv.bias", low_rank("lora-linear", (6, 1), 1)),
        WeightUpdate("conv.weight", low_rank("lora-linear", (6, 4), 1)),
        WeightUpdate("conv.weight", low_rank("lora-shared", (6, 4, 3, 3), 7)),
        WeightUpdate("conv.weight", low_rank("lora-channel", (6, 4, 3, 3), 5)),
        WeightUpdate("conv.weight", LowRank("lora-shared", torch.ones(6, 2), torch.ones(3, 36), 1.0)),
        WeightUpdate("conv.weight", LowRank("lora-channel", torch.ones(8, 6, 2), torch.ones(9, 2, 4), 1.0)),
        WeightUpdate("conv.weight", LowRank("lora-shared", torch.ones(6), torch.ones(36), 1.0)),
    ],
    ids=["unknown", "buffer", "shape", "vector", "kernel", "rank", "rank of a tap", "pair", "taps", "axes"],
)
def test_updates_that_do_not_fit(update):
    with pytest.raises(DeltaShapeError):
        apply_updates(make_base(), [update])
    with pytest.raises(DeltaShapeError):
        update_norm([update], make_base())


def test_a_first_layer_has_few_channels_but_many_taps():
    """One input channel: the shared form's matrix is still (O, K), so ranks up to that are proper."""
    base = {"w": torch.zeros(6, 1, 3, 3)}
    update = WeightUpdate("w", low_rank("lora-shared", (6, 1, 3, 3), 4))
    moved = apply_updates(base, [update])["w"]
    torch.testing.assert_close(moved.double(), slow_update(update.value, (6, 1, 3, 3)), rtol=1e-5, atol=1e-7)
    with pytest.raises(DeltaShapeError, match="rank 1 to 1"):
        apply_updates(base, [WeightUpdate("w", low_rank("lora-channel", (6, 1, 3, 3), 4))])


def test_factors_must_fit_the_base():
    base = make_base()
    with pytest.raises(DeltaShapeError):
        take_difference(base, tuned_from(base), {"unknown": low_rank("lora-linear", (5, 6), 1)})
    with pytest.raises(DeltaShapeError):
        take_difference(base, tuned_from(base), {"conv.weight": low_rank("lora-linear", (5, 6), 1)})


def test_what_is_not_finite_is_refused():
    base = make_base()
    with pytest.raises(DeltaValueError):
        take_difference(base, tuned_from(base, slope=math.nan), {})
    broken = LowRank("lora-linear", torch.full((5, 1), 1e30), torch.full((1, 6), 1e30), 1.0)
    with pytest.raises(DeltaValueError):
        take_difference(base, tuned_from(base), {"linear.weight": broken})
    with pytest.raises(DeltaValueError):
        apply_updates(base, [], step=math.inf)
    with pytest.raises(DeltaValueError):
        apply_updates({"w": torch.ones(2, dtype=torch.float16)}, [WeightUpdate("w", torch.full((2,), 1e6))])


def test_one_update_a_weight():
    twice = [WeightUpdate("slope", torch.tensor(1.0))] * 2
    with pytest.raises(DeltaShapeError, match="two"):
        apply_updates(make_base(), twice)
