"""Who is held out: decided by seed and images, never by the order of a listing, and never half a study."""

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.holdout import hold_out
from dafne_dante.errors import NotEnoughCasesError, SettingsError


def case(number, case_id=None):
    return Case(
        case_id=case_id or f"{number:016x}",
        image=np.full((1, 2, 2, 2), number, np.float32),
        segmentation=np.zeros((2, 2, 2), np.uint8),
        annotated=np.ones(2, np.bool_),
        affine=np.eye(4),
        labels=("a",),
    )


def numbers(cases):
    return [int(item.image.flat[0]) for item in cases]


@given(
    count=st.integers(2, 30),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
    shuffle=st.randoms(use_true_random=False),
)
def test_the_split_is_whole_and_does_not_depend_on_the_listing(count, share, seed, shuffle):
    cases = [case(number) for number in range(count)]
    training, held = hold_out(cases, share=share, seed=seed)
    assert sorted(numbers(training) + numbers(held)) == list(range(count))
    assert training
    assert held
    assert len(held) == min(max(round(share * count), 1), count - 1)
    shuffle.shuffle(cases)
    again = hold_out(cases, share=share, seed=seed)
    assert (numbers(again[0]), numbers(again[1])) == (numbers(training), numbers(held))


def test_the_split_does_not_depend_on_the_key_behind_the_ids():
    ids = [f"{random.Random(number).getrandbits(64):016x}" for number in range(12)]
    plain = hold_out([case(number) for number in range(12)], seed=3)
    keyed = hold_out([case(number, ids[number]) for number in range(12)], seed=3)
    assert [numbers(side) for side in keyed] == [numbers(side) for side in plain]


def test_another_seed_holds_out_others():
    cases = [case(number) for number in range(12)]
    assert len({tuple(sorted(numbers(hold_out(cases, seed=seed)[1]))) for seed in range(20)}) > 10


def test_equal_images_under_different_ids_are_still_chosen_by_the_seed():
    cases = [case(1, case_id) for case_id in "abcdefgh"]
    assert len({tuple(item.case_id for item in hold_out(cases, seed=seed)[1]) for seed in range(20)}) > 5


def test_one_more_study_changes_one_member_at_most():
    for seed in range(20):
        before = set(numbers(hold_out([case(number) for number in range(12)], seed=seed)[1]))
        after = set(numbers(hold_out([case(number) for number in range(13)], seed=seed)[1]))
        assert len(before - after) <= 1
        assert after - before <= {12}


def test_a_corrected_label_moves_no_study():
    cases = [case(number) for number in range(8)]
    corrected = [dataclasses.replace(item, segmentation=np.ones((2, 2, 2), np.uint8)) for item in cases]
    assert numbers(hold_out(corrected, seed=0)[1]) == numbers(hold_out(cases, seed=0)[1])


def test_copies_of_a_study_stay_on_one_side():
    cases = [case(number) for number in range(4)] + [case(number) for number in range(4)] + [case(0)]
    for seed in range(20):
        training, held = hold_out(cases, share=0.5, seed=seed)
        assert not {item.case_id for item in training} & {item.case_id for item in held}
        assert len(training) + len(held) == 9
        assert len({item.case_id for item in held}) == 2


@pytest.mark.parametrize("cases", [[], [case(1)], [case(1), case(1), case(1)]], ids=["none", "one", "three copies"])
def test_fewer_than_two_studies_cannot_be_divided(cases):
    with pytest.raises(NotEnoughCasesError, match=f"found {len({item.case_id for item in cases})}"):
        hold_out(cases, seed=0)


@pytest.mark.parametrize("share", [0, 1, -0.5, 2, float("nan")])
def test_a_share_is_between_nothing_and_all(share):
    with pytest.raises(SettingsError, match="between 0 and 1"):
        hold_out([case(1), case(2)], share=share, seed=0)
