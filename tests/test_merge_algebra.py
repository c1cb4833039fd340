"""What holds of merging for any updates, in memory or on the disk: hypothesis looks for those where it does not."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from deltas import KEY, TRUSTED, low_rank, make_base, make_facts
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_update

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.delta.decode import decode_delta
from dafne_dante.delta.difference import WeightUpdate, apply_updates, dense_value
from dafne_dante.delta.encode import encode_delta
from dafne_dante.federation.contribution import Contribution
from dafne_dante.federation.merge import merge_direction, merge_updates
from dafne_dante.federation.spilled import set_aside, spill

BASE = make_base()
SHAPES = {name: tuple(tensor.shape) for name, tensor in BASE.items() if tensor.is_floating_point()}
FORMS_OF = {"conv.weight": ("dense", "lora-channel", "lora-shared"), "linear.weight": ("dense", "lora-linear")}


@st.composite
def updates_of_a_site(draw):
    """One to all of the base's weights, each moved densely or by factors of a rank of its own."""
    names = draw(st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, unique=True))
    return tuple(draw(one_update(name)) for name in sorted(names))


@st.composite
def one_update(draw, name):
    form, seed = draw(st.sampled_from(FORMS_OF.get(name, ("dense",)))), draw(st.integers(0, 10_000))
    if form == "dense":
        return WeightUpdate(name, torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(seed)))
    return WeightUpdate(name, low_rank(form, SHAPES[name], draw(st.integers(1, 4)), seed, size=0.5))


def contributed(number, updates, *, cases=4):
    by_name = updates if not isinstance(updates, tuple) else {update.weight: update for update in updates}
    return Contribution(f"id{number:03}", f"site{number}", "b", cases, by_name)


def same(first, second):
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(updates=updates_of_a_site(), cases=st.integers(1, 1000), step=st.sampled_from([1.0, 0.5, 0.25]))
def test_one_update_is_applied_as_it_is(updates, cases, step):
    merged = merge_updates(BASE, [contributed(1, updates, cases=cases)], step=step)
    assert same(merged, apply_updates(BASE, updates, step=step))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(updates=updates_of_a_site(), precision=st.sampled_from(["auto", "float16"]))
def test_an_update_on_the_disk_is_the_one_in_memory(updates, precision):
    content = encode_delta(updates, make_facts(), KEY, precision=precision)
    delta = decode_delta(content, base=BASE, trusted_keys=TRUSTED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sent.delta")
        path.write_bytes(content)
        for aside in (set_aside(delta, path), spill(delta.updates, Path(folder, "spilled"))):
            assert same(
                merge_updates(BASE, [contributed(1, aside)]), merge_updates(BASE, [contributed(1, delta.updates)])
            )
            assert abs(aside.length - delta.length) <= 1e-6 * delta.length
            for update in delta.updates:
                shape = SHAPES[update.weight]
                assert torch.equal(dense_value(aside[update.weight], shape), dense_value(update, shape))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(sent=st.lists(updates_of_a_site(), min_size=1, max_size=12), sites=st.integers(1, 12))
def test_many_updates_on_the_disk_merge_as_in_memory(sent, sites):
    """Also where a site sent several; only lengths, and so what is clipped, are found another way."""
    with tempfile.TemporaryDirectory() as folder:
        in_memory, on_disk = [], []
        for number, updates in enumerate(sent):
            path = Path(folder, f"{number}.delta")
            path.write_bytes(encode_delta(updates, make_facts(), KEY))
            delta = decode_delta(path.read_bytes(), base=BASE, trusted_keys=TRUSTED)
            site = replace(contributed(number, delta.updates, cases=1 + number), public_key=f"site{number % sites}")
            in_memory.append(site)
            on_disk.append(replace(site, updates=set_aside(delta, path)))
        merged, expected = merge_updates(BASE, on_disk), merge_updates(BASE, in_memory)
        for name, tensor in expected.items():
            torch.testing.assert_close(merged[name], tensor, rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(sent=st.lists(updates_of_a_site(), min_size=2, max_size=12), order=st.randoms(use_true_random=False))
def test_the_order_changes_no_bit(sent, order):
    contributions = [contributed(number, updates, cases=1 + 3 * number) for number, updates in enumerate(sent)]
    merged = merge_updates(BASE, contributions)
    order.shuffle(contributions)
    assert same(merged, merge_updates(BASE, contributions))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    ranks=st.lists(st.integers(1, 4), min_size=2, max_size=2),
    forms=st.lists(st.sampled_from(["lora-channel", "lora-shared"]), min_size=2, max_size=2),
    cases=st.lists(st.integers(1, 50), min_size=2, max_size=2),
    seed=st.integers(0, 10_000),
)
def test_any_ranks_equal_the_average_of_their_dense_forms(ranks, forms, cases, seed):
    shape = SHAPES["conv.weight"]
    factors = [low_rank(forms[k], shape, ranks[k], seed + k, size=0.5) for k in range(2)]
    contributions = [
        contributed(k, (WeightUpdate("conv.weight", value),), cases=cases[k]) for k, value in enumerate(factors)
    ]
    # Of two sites none outweighs the other, whatever their cases.
    expected = BASE["conv.weight"].double() + sum(slow_update(value, shape) for value in factors) / 2
    merged = merge_updates(BASE, contributions)["conv.weight"]
    assert float((merged - expected).abs().max()) < 1e-5


@settings(max_examples=30, deadline=None, derandomize=True)
@given(sent=st.lists(updates_of_a_site(), min_size=1, max_size=8))
def test_integer_buffers_and_what_nobody_trained_stay(sent):
    merged = merge_updates(BASE, [contributed(number, updates) for number, updates in enumerate(sent)])
    trained = {update.weight for updates in sent for update in updates}
    assert all(torch.equal(merged[name], BASE[name]) for name in BASE.keys() - trained)
    assert merged["norm.num_batches_tracked"].dtype == torch.int64


@settings(max_examples=30, deadline=None, derandomize=True)
@given(sent=st.lists(updates_of_a_site(), min_size=1, max_size=8))
def test_zero_updates_change_nothing(sent):
    nothing = [contributed(number, tuple(zeroed(update) for update in updates)) for number, updates in enumerate(sent)]
    assert merge_direction(BASE, nothing) == ()
    assert same(merge_updates(BASE, nothing), BASE)


def zeroed(update):
    value = update.value
    if isinstance(value, LowRank):
        return WeightUpdate(update.weight, LowRank(value.form, value.a, torch.zeros_like(value.b), value.scale))
    return WeightUpdate(update.weight, torch.zeros_like(value))
