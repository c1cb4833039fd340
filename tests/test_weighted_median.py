"""The weighted median beside numpy's of the repeated numbers, and as the rule of a merge."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merging import QuickOperator
from test_trimmed_mean import drawn

from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.delta.signing import ensure_signing_key, public_key_text, trust_key
from dafne_dante.federation import weighted_median as module
from dafne_dante.federation.contribution import Contribution
from dafne_dante.federation.merge import merge_direction
from dafne_dante.federation.weighted_median import rule_of, weighted_median

BASE = {"w": torch.zeros(4, 3)}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=st.integers(1, 40), seed=st.integers(0, 1000), ties=st.booleans())
def test_with_equal_weights_it_is_numpys(rows, seed, ties):
    values, _ = drawn(rows, 11, seed, ties)
    found = weighted_median(values, np.full(rows, np.float32(3**0.5)))
    np.testing.assert_allclose(found, np.median(values, axis=0), rtol=1e-6, atol=1e-7)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(weights=st.lists(st.integers(1, 6), min_size=1, max_size=15), seed=st.integers(0, 1000), ties=st.booleans())
def test_with_weights_it_is_numpys_of_numbers_repeated(weights, seed, ties):
    values, _ = drawn(len(weights), 11, seed, ties)
    counted = np.minimum(weights, sorted(weights)[(len(weights) - 1) // 2])
    expected = np.median(np.repeat(values, counted, axis=0), axis=0)
    scaled = np.array(weights, dtype=np.float32) / 7
    np.testing.assert_allclose(weighted_median(values, scaled), expected, rtol=1e-6, atol=1e-7)
    order = np.random.default_rng(seed).permutation(len(weights))
    np.testing.assert_array_equal(weighted_median(values[order], scaled[order]), weighted_median(values, scaled))


def test_pieces_of_any_size_give_the_same(monkeypatch):
    values, weights = drawn(7, 500, 5, ties=True)
    whole = weighted_median(values, weights)
    monkeypatch.setattr(module, "_PIECE_NUMBERS", 40)
    np.testing.assert_array_equal(weighted_median(values, weights), whole)


def test_the_largest_numbers_do_not_run_over():
    values = np.array([[3e38], [3.2e38]], dtype=np.float32)
    assert weighted_median(values, np.ones(2, dtype=np.float32))[0] == pytest.approx(3.1e38, rel=1e-6)


def contribution(number, value, cases=4):
    update = WeightUpdate("w", torch.full((4, 3), float(value)))
    return Contribution(f"u{number}", f"site{number}", "base", cases, {"w": update}, 0)


@pytest.mark.parametrize("cases", [4, 10**6])
@pytest.mark.parametrize("bad", [-1.0, 1.0])
def test_of_five_sites_one_that_lies_moves_the_median_no_further_than_the_next_honest_one(bad, cases):
    """Within the length of the others, so that clipping says nothing; and however many cases it claims."""
    honest = [0.80, 0.90, 1.00, 0.95]
    sent = [contribution(number, value) for number, value in enumerate(honest)]
    [update] = merge_direction(BASE, [*sent, contribution(9, bad, cases)], "median")
    assert bool((update.value >= 0.80).all()) and bool((update.value <= 1.00).all())


def test_up_to_four_sites_both_rules_are_the_mean():
    sent = [contribution(number, value) for number, value in enumerate((1.0, 1.0, 1.0, -1.0))]
    [trimmed] = merge_direction(BASE, sent, "trimmed")
    [median] = merge_direction(BASE, sent, "median")
    assert torch.equal(trimmed.value, median.value)
    assert float(median.value[0, 0]) == pytest.approx(0.5)


def test_the_rules_differ_from_five_on():
    sent = [contribution(number, value) for number, value in enumerate((0.1, 0.2, 0.3, 0.7, 1.0))]
    [trimmed] = merge_direction(BASE, sent, rule_of("trimmed"))
    [median] = merge_direction(BASE, sent, rule_of("median"))
    assert float(trimmed.value[0, 0]) != pytest.approx(float(median.value[0, 0]), abs=1e-3)


@pytest.mark.parametrize(("rule", "moved"), [("median", 0.003), ("trimmed", 0.008 / 3)])
def test_the_setting_decides_in_a_merge(tmp_path, rule, moved):
    """Of updates scaled to the median length: 0.001, 0.002 and three times 0.003."""
    operator = QuickOperator(tmp_path)
    operator.settings = replace(operator.settings, merge_rule=rule)
    for number, amount in enumerate((0.001, 0.002, 0.003, 0.007, 0.010)):
        operator.keys[f"s{number}"] = ensure_signing_key(tmp_path / f"s{number}")
        trust_key(operator.settings.folder, public_key_text(operator.keys[f"s{number}"]), f"s{number}")
        operator.send(operator.delta(amount, site=f"s{number}"))
    assert operator.merge().merged == 5
    assert operator.moved() == pytest.approx(moved, rel=1e-2)
