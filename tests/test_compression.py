"""Truncated decomposition: the residual that was allowed, never more bytes, and exactness where nothing is left out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.delta.compression import compressed
from dafne_dante.delta.difference import WeightUpdate, check_fit, dense_value
from dafne_dante.errors import DeltaValueError

SHAPES = [(16, 8, 3, 3, 3), (8, 16, 3, 3), (40, 6), (6, 40), (3, 3), (5,), (), (64, 1, 2, 2)]


def numbers(value):
    return value.a.numel() + value.b.numel() if isinstance(value, LowRank) else value.numel()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    residual=st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.9]),
    seed=st.integers(0, 10_000),
    decay=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_a_dense_update_stays_within_its_residual_and_fits_its_weight(shape, residual, seed, decay):
    torch.manual_seed(seed)
    value = torch.randn(shape)
    if value.dim() > 1:
        left, sizes, right = torch.linalg.svd(value.flatten(1), full_matrices=False)
        sizes = torch.arange(1, len(sizes) + 1) ** -decay
        value = (left * sizes @ right).reshape(shape)
    (found,) = compressed([WeightUpdate("w", value)], residual)
    check_fit(found, shape)
    error = torch.linalg.vector_norm(dense_value(found, shape) - value) / torch.linalg.vector_norm(value)
    assert float(error) <= residual + 1e-5
    assert numbers(found.value) <= value.numel()


@pytest.mark.parametrize("form", ["lora-shared", "lora-linear"])
@pytest.mark.parametrize("true_rank", [1, 3])
def test_factors_of_a_lower_rank_than_they_claim_get_it(form, true_rank):
    torch.manual_seed(0)
    shape = (12, 30) if form == "lora-linear" else (12, 10, 3)
    a, b = torch.randn(12, true_rank) @ torch.randn(true_rank, 8), torch.randn(8, 30)
    update = WeightUpdate("w", LowRank(form, a, b, 2.0))
    (found,) = compressed([update], 1e-4)
    assert (found.value.form, found.value.rank) == (form, true_rank)
    torch.testing.assert_close(dense_value(found, shape), dense_value(update, shape), rtol=1e-3, atol=1e-3)


def test_the_rank_is_the_lowest_that_is_allowed():
    left, right = torch.linalg.qr(torch.randn(20, 4))[0], torch.linalg.qr(torch.randn(50, 4))[0]
    matrix = left * torch.tensor([8.0, 4.0, 2.0, 1.0]) @ right.mT
    for residual, rank in [(0.05, 4), (0.12, 3), (0.25, 2), (0.5, 1)]:
        (found,) = compressed([WeightUpdate("w", matrix)], residual)
        assert found.value.rank == rank


def test_what_gains_nothing_comes_back_as_it_is():
    torch.manual_seed(1)
    channel = WeightUpdate("c", LowRank("lora-channel", torch.randn(9, 4, 1), torch.randn(9, 1, 3), 1.0))
    zero, vector, full = (WeightUpdate("w", one) for one in (torch.zeros(4, 4), torch.ones(4), torch.eye(6)))
    updates = [channel, zero, vector, full]
    assert compressed(updates, 0.2) == tuple(updates)
    low = WeightUpdate("l", torch.ones(30, 30))
    assert compressed([low], 0.0) == (low,)


@pytest.mark.parametrize("residual", [-0.1, 1.0, float("nan")])
def test_a_residual_out_of_range_is_refused(residual):
    with pytest.raises(DeltaValueError, match="residual"):
        compressed([], residual)


def test_numbers_that_are_not_finite_are_refused():
    for value in (
        torch.full((3, 3), torch.nan),
        LowRank("lora-linear", torch.ones(3, 1), torch.full((1, 3), torch.inf), 1.0),
    ):
        with pytest.raises(DeltaValueError, match="found NaN or infinity"):
            compressed([WeightUpdate("w", value)], 0.1)
