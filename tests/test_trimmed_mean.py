"""The trimmed mean beside a slow one, which goes coordinate by coordinate, with ties and for any number of sites."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dafne_dante.federation import order_statistics, trimmed_mean
from dafne_dante.federation.order_statistics import NETWORK_ROWS, ranked


def slow_trimmed_mean(column, weights, cut):
    """Cut at each end; those that hold the same number share what is cut of it."""
    low, high = sorted(column)[cut - 1], sorted(column)[-cut]
    if low == high:
        return low
    sums, total = Fraction(0), Fraction(0)
    for value, weight in zip(column, weights, strict=True):
        share = Fraction(int(low < value < high))
        if value == low:
            share = 1 - Fraction(cut - sum(other < low for other in column), column.count(low))
        if value == high:
            share = 1 - Fraction(cut - sum(other > high for other in column), column.count(high))
        sums, total = sums + share * Fraction(value) * Fraction(weight), total + share * Fraction(weight)
    return float(sums / total)


def drawn(rows, columns, seed, ties):
    draw = np.random.default_rng(seed)
    values = draw.integers(-3, 4, (rows, columns)) if ties else draw.normal(size=(rows, columns))
    return values.astype(np.float32), draw.uniform(0.5, 3, rows).astype(np.float32)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=st.integers(5, 50), seed=st.integers(0, 1000), ties=st.booleans())
def test_it_equals_the_slow_one(rows, seed, ties):
    values, weights = drawn(rows, 12, seed, ties)
    cut = max(1, rows // 5)
    found = trimmed_mean.trimmed_mean(values, weights, cut)
    expected = [slow_trimmed_mean(column, weights.tolist(), cut) for column in values.T.tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(rows=st.integers(1, 60), seed=st.integers(0, 1000), ties=st.booleans(), data=st.data())
def test_a_rank_is_found_by_network_and_by_sorting_alike(rows, seed, ties, data):
    values, _ = drawn(rows, 9, seed, ties)
    ranks = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=3))
    before = values.copy()
    for found, rank in zip(ranked(values, ranks), ranks, strict=True):
        np.testing.assert_array_equal(found, np.sort(values, axis=0)[rank])
    np.testing.assert_array_equal(values, before)


def test_many_rows_by_network_too(monkeypatch):
    values, _ = drawn(NETWORK_ROWS + 60, 40, 3, ties=True)
    sorted_ones = ranked(values, (19, 80))
    monkeypatch.setattr(order_statistics, "NETWORK_ROWS", 1000)
    np.testing.assert_array_equal(ranked(values, (19, 80)), sorted_ones)


@pytest.mark.parametrize("size", [1e10, 1e30, 3e38])
def test_what_is_cut_enters_no_sum(size):
    values, weights = drawn(10, 100, 1, ties=False)
    honest = trimmed_mean.trimmed_mean(values, weights, 2)
    values[3], values[7] = size, -size
    attacked = trimmed_mean.trimmed_mean(values, weights, 2)
    assert np.abs(attacked).max() <= np.abs(np.delete(values, (3, 7), axis=0)).max()
    assert np.abs(attacked - honest).max() < 1.5


def test_pieces_of_any_size_give_the_same(monkeypatch):
    values, weights = drawn(7, 500, 5, ties=True)
    whole = trimmed_mean.trimmed_mean(values, weights, 1)
    monkeypatch.setattr(trimmed_mean, "_PIECE_NUMBERS", 40)
    np.testing.assert_allclose(trimmed_mean.trimmed_mean(values, weights, 1), whole, rtol=1e-6)
