"""Who is to blame for a batch that the operator's cases refuse, by tries over made-up outcomes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dafne_dante.federation.leaving_out import BLOCKS, MAX_TRIES, select_updates
from dafne_dante.federation.merge import Attempt, MergeOutcome


class Tries:
    """Outcomes as a function of the set of ids; counts them."""

    def __init__(self, step_of):
        self.step_of, self.made = step_of, []

    def __call__(self, ids):
        self.made.append(tuple(ids))
        step = self.step_of(set(ids))
        dice = {"mean": 0.8 + step / 10, "ball": 0.8}
        attempts = () if step == 1 else (Attempt(1.0, dice, "Dice of ball falls from 0.800 to 0.100"),)
        return MergeOutcome(step, {}, dice, dice, f"step {step:g}", attempts)


def spoiled_by(*bad, step=0.0):
    return lambda ids: step if ids & set(bad) else 1.0


def names(count):
    return [f"u{number:03}" for number in range(count)]


def test_a_batch_that_goes_all_the_way_costs_one_try():
    tries = Tries(spoiled_by())
    selection = select_updates(names(5), tries)
    assert selection.kept == tuple(names(5))
    assert (selection.culprits, selection.postponed, len(tries.made)) == ({}, {}, 1)


@pytest.mark.parametrize("count", [2, 5, 16, 17, 40, 100])
@pytest.mark.parametrize("step", [0.0, 0.25, 0.5])
def test_one_bad_update_does_not_sink_the_good_ones(count, step):
    bad = f"u{count // 2:03}"
    tries = Tries(spoiled_by(bad, step=step))
    selection = select_updates(names(count), tries)
    assert list(selection.culprits) == [bad]
    assert "Dice of ball falls" in selection.culprits[bad]
    assert selection.kept == tuple(name for name in names(count) if name != bad)
    assert selection.outcome.step == 1
    assert selection.postponed == {}
    assert len(tries.made) <= 3 + min(count, BLOCKS) + (0 if count <= BLOCKS else -(-count // BLOCKS))


@pytest.mark.parametrize("count", [5, 10, 16])
def test_several_that_each_spoil_it_are_found_alone(count):
    """Leaving out one of them changes nothing, so each is tried on its own."""
    bad = names(count)[1::3]
    selection = select_updates(names(count), Tries(spoiled_by(*bad)))
    assert set(selection.culprits) == set(bad)
    assert set(selection.kept) == set(names(count)) - set(bad)
    assert selection.outcome.step == 1


def test_two_that_each_shorten_the_step_are_found_one_after_the_other():
    def step_of(ids):
        return (1.0, 0.5, 0.25)[len(ids & {"u001", "u003"})]

    selection = select_updates(names(6), Tries(step_of))
    assert set(selection.culprits) == {"u001", "u003"}
    assert (len(selection.kept), selection.outcome.step) == (4, 1)


def test_an_update_that_is_good_alone_is_never_blamed():
    """Two that go only apart: the step they get together is taken, or one is merged and the other waits."""
    together = select_updates(names(2), Tries(lambda ids: 0.5 if len(ids) == 2 else 1.0))
    assert (together.kept, together.outcome.step, together.culprits) == (("u000", "u001"), 0.5, {})
    apart = select_updates(names(2), Tries(lambda ids: 0.0 if len(ids) == 2 else 1.0))
    assert (len(apart.kept), apart.outcome.step, apart.culprits) == (1, 1, {})
    assert list(apart.postponed) == ["u001"]
    assert "next merge" in apart.postponed["u001"]


def test_a_batch_of_bad_ones_is_refused_with_their_reasons():
    selection = select_updates(names(3), Tries(lambda ids: 0.0))
    assert (selection.kept, selection.outcome.step) == ((), 0)
    assert set(selection.culprits) == set(names(3))
    alone = select_updates(["u000"], Tries(lambda ids: 0.0))
    assert alone.culprits == {"u000": "step 0"}


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 120), bad=st.sets(st.integers(0, 119), max_size=60), step=st.sampled_from([0.0, 0.25, 0.5]))
def test_tries_are_bounded_and_the_queue_always_moves(count, bad, step):
    spoilers = {f"u{number:03}" for number in bad}
    tries = Tries(spoiled_by(*spoilers, step=step))
    selection = select_updates(names(count), tries)
    assert len(tries.made) <= 1 + MAX_TRIES
    parts = [*selection.kept, *selection.culprits, *selection.postponed]
    assert sorted(parts) == names(count)
    assert set(selection.culprits) <= spoilers
    assert selection.culprits or (selection.kept and selection.outcome.step > 0)
