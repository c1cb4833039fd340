"""Merging: averages where sums would overshoot, the same for any order, any rank and any form."""

import math
from functools import partial

import pytest
import torch
from deltas import TRUSTED, low_rank, make_base, make_delta, make_updates
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_update

from dafne_dante.adaptation.low_rank import FORMS
from dafne_dante.delta.decode import decode_delta
from dafne_dante.delta.difference import WeightUpdate, apply_updates, dense_value
from dafne_dante.errors import DeltaReplayError, DeltaShapeError, DeltaValueError
from dafne_dante.federation import group_mean
from dafne_dante.federation.group_mean import clip_factors, contribution_weights
from dafne_dante.federation.merge import (
    Contribution,
    choose_step,
    contribution_from,
    merge_direction,
    merge_updates,
)
from dafne_dante.federation.weight_rows import row_blocks

BASE = make_base()
SHAPE = (6, 4, 3, 3)


def contribution(number, *updates, site=None, base="b", cases=4, age=0, published=False):
    by_name = {update.weight: update for update in updates}
    return Contribution(f"id{number:03}", site or f"site{number}", base, cases, by_name, age, published)


def move(value, name="conv.bias"):
    return WeightUpdate(name, torch.full(tuple(BASE[name].shape), float(value)))


def bias_after(contributions, **options):
    """By how much the bias moved, one number."""
    merged = merge_updates({**BASE, "conv.bias": torch.zeros(6)}, contributions, **options)["conv.bias"]
    assert (merged == merged[0]).all()
    return float(merged[0])


def test_one_update_is_applied_as_it_is():
    for step in (1.0, 0.5):
        merged = merge_updates(BASE, [contribution(1, *make_updates())], step=step)
        applied = apply_updates(BASE, make_updates(), step=step)
        assert list(merged) == list(BASE)
        assert all(torch.equal(merged[name], applied[name]) for name in BASE)


def test_a_delta_becomes_a_contribution():
    delta = decode_delta(make_delta(), base=BASE, trusted_keys=TRUSTED)
    one = contribution_from(delta, age=2)
    assert (one.cases, one.age, one.published, one.public_key) == (7, 2, False, delta.public_key)
    assert one.update_id == delta.manifest.update_id
    assert one.base_sha256 == delta.manifest.base_sha256
    assert set(one.updates) == {update.weight for update in delta.updates}


def test_updates_of_one_base_are_averaged_not_summed():
    assert bias_after([contribution(1, move(1.0)), contribution(2, move(1.0))]) == 1.0
    assert bias_after([contribution(1, move(1.0)), contribution(2, move(3.0))]) == 2.0


@settings(max_examples=25, deadline=None)
@given(
    forms=st.lists(st.tuples(st.sampled_from([*FORMS[:2], "dense"]), st.integers(1, 4)), min_size=2, max_size=2),
    seed=st.integers(0, 1000),
)
def test_mixed_ranks_and_forms_equal_the_average_of_their_dense_forms(forms, seed):
    updates = []
    for index, (form, rank) in enumerate(forms):
        value = (
            torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
            if form == "dense"
            else low_rank(form, SHAPE, rank, seed + index, size=0.5)
        )
        updates.append(WeightUpdate("conv.weight", value))
    merged = merge_updates(BASE, [contribution(index, update) for index, update in enumerate(updates)])
    slow = [
        update.value.double() if isinstance(update.value, torch.Tensor) else slow_update(update.value, SHAPE)
        for update in updates
    ]
    expected = BASE["conv.weight"].double() + sum(slow) / 2
    assert float((merged["conv.weight"] - expected).abs().max()) < 1e-5


def random_contributions(draw_seed, count):
    draw = torch.Generator().manual_seed(draw_seed)
    made = []
    for number in range(count):
        kind = ("lora-channel", "lora-shared")[number % 2]
        made.append(
            contribution(
                number,
                WeightUpdate("conv.weight", low_rank(kind, SHAPE, 1 + number % 3, draw_seed + number)),
                *([WeightUpdate("conv.bias", torch.randn(6, generator=draw))] if number % 3 else []),
                site=f"site{number % 7}",
                base=f"base{number % 2}",
                cases=1 + 3 * number,
                age=number % 2,
                published=number == 4,
            )
        )
    return made


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 14), seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_the_order_changes_no_bit(count, seed, order):
    contributions = random_contributions(seed, count)
    first = merge_updates(BASE, contributions)
    order.shuffle(contributions)
    second = merge_updates(BASE, contributions)
    assert all(torch.equal(first[name], second[name]) for name in BASE)


def test_integer_buffers_and_the_current_weights_stay():
    before = {name: tensor.clone() for name, tensor in BASE.items()}
    merged = merge_updates(BASE, random_contributions(1, 6))
    assert torch.equal(merged["norm.num_batches_tracked"], torch.tensor(3))
    assert merged["norm.num_batches_tracked"].dtype == torch.int64
    assert torch.equal(merged["still.weight"], BASE["still.weight"])
    assert all(torch.equal(BASE[name], before[name]) for name in BASE)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_zero_updates_change_nothing(count):
    contributions = [contribution(number, move(0.0)) for number in range(count)]
    assert merge_direction(BASE, contributions) == ()
    assert merge_direction(BASE, []) == ()
    assert all(torch.equal(tensor, BASE[name]) for name, tensor in merge_updates(BASE, contributions).items())


def test_a_site_weighs_the_root_of_its_cases():
    three = [contribution(1, cases=4), contribution(2, cases=9), contribution(3, cases=16)]
    assert contribution_weights(three) == [2, 3, 4]


def test_a_site_counts_once_however_often_it_sends():
    busy = [contribution(number, cases=9, site="busy") for number in range(1, 5)]
    weights = contribution_weights([*busy, contribution(9, cases=9), contribution(8, cases=9)])
    assert sum(weights[:4]) == pytest.approx(3)
    assert weights[4:] == [3, 3]


def test_no_site_outweighs_all_others():
    weights = contribution_weights([contribution(1, cases=10_000), contribution(2, cases=4), contribution(3, cases=9)])
    assert weights == [5, 2, 3]
    assert contribution_weights([contribution(1, cases=10_000), contribution(2, cases=4)]) == [2, 2]
    assert bias_after([contribution(1, move(1.0), cases=10_000), contribution(2, move(0.0), cases=1)]) == 0.5


def test_a_layer_is_averaged_over_those_who_trained_it():
    both = [contribution(1, move(1.0), move(1.0, "slope")), contribution(2, move(3.0))]
    merged = merge_updates(BASE, both)
    torch.testing.assert_close(merged["conv.bias"], BASE["conv.bias"] + 2.0)
    torch.testing.assert_close(merged["slope"], BASE["slope"] + 1.0)


@pytest.mark.parametrize("age", [0, 1, 3, 8])
def test_an_old_base_moves_the_model_less(age):
    assert bias_after([contribution(1, move(1.0), age=age)]) == pytest.approx(1 / math.sqrt(1 + age))


def test_groups_share_one_step():
    old, new = contribution(1, move(1.0), base="old", age=3), contribution(2, move(1.0), base="new")
    assert bias_after([old, new]) == pytest.approx(0.5 * 0.5 + 0.5)
    many = [contribution(number, move(1.0), base=f"base{number}", age=0) for number in range(4)]
    assert bias_after(many) == pytest.approx(1.0)


def test_updates_that_come_one_by_one_end_where_one_batch_ends():
    values, moved = (1.0, 2.0, 6.0, 3.0, -4.0, 5.0), 0.0
    for count in range(1, len(values) + 1):
        listed = [
            contribution(number, move(value), published=number < count - 1)
            for number, value in enumerate(values[:count])
        ]
        moved += bias_after(listed)
    batch = bias_after([contribution(number, move(value)) for number, value in enumerate(values)])
    assert moved == pytest.approx(batch, rel=1e-5)
    assert abs(moved) <= 6


def test_published_updates_alone_move_nothing():
    assert merge_direction(BASE, [contribution(1, move(1.0), published=True)]) == ()


def test_a_long_update_is_clipped_to_the_median_from_three_sites_on():
    assert bias_after([contribution(1, move(1.0)), contribution(2, move(9.0))]) == 5.0
    assert bias_after([contribution(n, move(v)) for n, v in enumerate((1.0, 1.0, 1e4))]) == pytest.approx(1.0)
    factors = clip_factors([contribution(n, move(v)) for n, v in enumerate((1.0, 2.0, 8.0))])
    assert factors == {"id000": 1.0, "id001": 1.0, "id002": pytest.approx(0.25)}


def test_one_site_with_many_updates_cannot_move_the_median():
    honest = [contribution(n, move(1.0)) for n in range(3)]
    attack = [contribution(10 + n, move(1e4), site="attacker") for n in range(9)]
    assert max(clip_factors(honest + attack)[one.update_id] for one in attack) == pytest.approx(1e-4)


def test_from_five_sites_on_outliers_of_a_coordinate_are_cut():
    values = (1.0, 1.0, 1.0, 1.0, -1.0)
    assert bias_after([contribution(n, move(v)) for n, v in enumerate(values)]) == pytest.approx(1.0)
    assert bias_after([contribution(n, move(v)) for n, v in enumerate(values[1:])]) == pytest.approx(0.5)
    # The same five, two of them from one site, are four sites.
    same = [contribution(n, move(v), site=f"site{min(n, 3)}") for n, v in enumerate(values)]
    assert bias_after(same) == pytest.approx((1 + 1 + 1 + 0) / 4)


def slow_trimmed_mean(values, weights):
    """One coordinate at a time: drop the lowest and the highest fifth, weigh the rest."""
    result = torch.empty(values.shape[1], dtype=torch.float64)
    cut = max(1, int(0.2 * len(values)))
    for index in range(values.shape[1]):
        ranked = sorted(zip(values[:, index].tolist(), weights, strict=True))[cut : len(values) - cut]
        result[index] = sum(value * weight for value, weight in ranked) / sum(weight for _, weight in ranked)
    return result


@pytest.mark.parametrize("piece", [1, 100, 1 << 22])
@pytest.mark.parametrize("sites", [5, 6, 11])
def test_the_trimmed_mean_equals_the_slow_one_in_pieces_of_any_size(monkeypatch, piece, sites):
    monkeypatch.setattr(group_mean, "row_blocks", partial(row_blocks, numbers=piece))
    updates = [
        WeightUpdate("conv.weight", low_rank(("lora-channel", "lora-shared")[n % 2], SHAPE, 1 + n % 3, n))
        for n in range(sites)
    ]
    contributions = [contribution(n, update, cases=1 + n) for n, update in enumerate(updates)]
    clips = clip_factors(contributions)
    values = torch.stack(
        [
            dense_value(u, SHAPE).reshape(-1).double() * clips[c.update_id]
            for u, c in zip(updates, contributions, strict=True)
        ]
    )
    expected = slow_trimmed_mean(values, contribution_weights(contributions))
    merged = merge_updates({**BASE, "conv.weight": torch.zeros(SHAPE)}, contributions)
    torch.testing.assert_close(merged["conv.weight"].reshape(-1).double(), expected, rtol=1e-4, atol=1e-6)


def test_scalars_are_trimmed_too():
    contributions = [contribution(n, move(v, "slope")) for n, v in enumerate((1.0, 1.0, 1.0, 1.0, -1.0))]
    torch.testing.assert_close(merge_updates(BASE, contributions)["slope"], BASE["slope"] + 1.0)


def test_a_scaled_attack_moves_the_model_hardly_more_than_honest_sites():
    """One of five sites sends ten thousand times the honest update, in the other direction."""
    honest = [contribution(n, WeightUpdate("conv.bias", torch.ones(6) * (1 + n / 10))) for n in range(4)]
    attack = contribution(9, move(-1e4), cases=10_000)
    assert 0.9 <= float((merge_updates(BASE, [*honest, attack])["conv.bias"] - BASE["conv.bias"]).mean()) <= 1.3


BAD = {
    "unknown weight": ([contribution(1, WeightUpdate("unknown", torch.ones(1)))], DeltaShapeError),
    "buffer": ([contribution(1, WeightUpdate("norm.num_batches_tracked", torch.tensor(1.0)))], DeltaShapeError),
    "shape": ([contribution(1, WeightUpdate("conv.bias", torch.ones(7)))], DeltaShapeError),
    "twice": ([contribution(1, move(1.0)), contribution(1, move(1.0))], DeltaReplayError),
    "two ages": ([contribution(1, move(1.0)), contribution(2, move(1.0), age=1)], DeltaValueError),
}


@pytest.mark.parametrize(("contributions", "error"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_merged(contributions, error):
    with pytest.raises(error):
        merge_updates(BASE, contributions)


@pytest.mark.parametrize("changes", [{"cases": 0}, {"age": -1}], ids=str)
def test_contributions_out_of_bounds(changes):
    with pytest.raises(DeltaValueError):
        contribution(1, **changes)


class Operator:
    """Dice on the operator's cases as a function of how far the bias moved; counts the evaluations."""

    def __init__(self, dice):
        self.dice, self.calls = dice, 0

    def __call__(self, weights):
        self.calls += 1
        return self.dice(round(float((weights["conv.bias"] - BASE["conv.bias"]).mean()), 4))


def fall(rate):
    return lambda moved: {"mean": 0.85, "left": 0.8 - rate * moved, "right": 0.9}


@pytest.mark.parametrize(
    ("rate", "step", "calls"), [(0.0, 1.0, 2), (0.02, 1.0, 2), (0.03, 0.5, 3), (0.07, 0.25, 4), (0.5, 0.0, 4)]
)
def test_the_step_backs_off_until_no_label_minds(rate, step, calls):
    operator = Operator(fall(rate))
    outcome = choose_step(BASE, [contribution(1, move(1.0))], operator, 0.02)
    assert outcome.step == step
    assert operator.calls == calls
    assert [attempt.step for attempt in outcome.attempts] == [1.0, 0.5, 0.25][: calls - 1]
    assert outcome.dice_before == fall(rate)(0.0)
    assert outcome.dice_after == fall(rate)(step)
    expected = merge_updates(BASE, [contribution(1, move(1.0))], step=step)
    assert all(torch.equal(outcome.weights[name], expected[name]) for name in BASE)
    assert ("left" in outcome.reason) == (step == 0)


@pytest.mark.parametrize(
    ("after", "margin", "step"),
    [
        ({"mean": 0.7, "left": 0.8, "right": 0.6}, 0.02, 0.0),
        ({"mean": 0.7, "left": 0.8, "right": 0.6}, {"left": 0.02, "right": 0.4}, 1.0),
        ({"mean": 0.7, "left": 0.8, "right": 0.6}, {"left": 0.4}, 0.0),
        ({"mean": 0.8, "left": 0.8, "right": None}, 0.02, 0.0),
        ({"mean": 0.8, "left": 0.8}, 0.02, 0.0),
        ({"mean": 0.8, "left": math.nan, "right": 0.9}, 0.02, 0.0),
        ({"mean": 0.8, "left": 0.8, "right": 0.9, "never": 0.0}, 0.02, 1.0),
    ],
)
def test_every_label_has_its_margin(after, margin, step):
    before = {"mean": 0.85, "left": 0.8, "right": 0.9, "never": None}
    operator = Operator(lambda moved: after if moved else before)
    assert choose_step(BASE, [contribution(1, move(1.0))], operator, margin).step == step


@pytest.mark.parametrize("contributions", [[], [contribution(1, move(0.0))]], ids=["none", "zero"])
def test_nothing_is_published_when_nothing_moves(contributions):
    operator = Operator(fall(0.0))
    outcome = choose_step(BASE, contributions, operator, 0.02)
    assert (outcome.step, operator.calls, outcome.attempts) == (0.0, 1, ())
    assert all(torch.equal(outcome.weights[name], BASE[name]) for name in BASE)


def test_the_one_that_spoils_a_batch_can_be_found_by_leaving_each_out():
    """The shape that finding it needs: the outcome is a function of the set."""
    batch = [
        contribution(1, move(0.1)),
        contribution(2, move(0.1)),
        contribution(3, WeightUpdate("slope", torch.tensor(5.0))),
    ]

    def evaluate(weights):
        return {"mean": 0.9, "left": 0.9 if float(weights["slope"]) < 0.3 else 0.1, "right": 0.9}

    assert choose_step(BASE, batch, evaluate, 0.02).step == 0
    spoilers = [
        one.update_id for one in batch if choose_step(BASE, [o for o in batch if o is not one], evaluate, 0.02).step > 0
    ]
    assert spoilers == ["id003"]
