"""Sequences of prepared cases behind each other: nothing is taken before it is asked for, and places are right."""

from dataclasses import replace

import pytest
from phantoms import make_case, tiny_plan

from dafne_dante.training.joined import JoinedCases
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.sampling import PatchSampler

CASES = prepare_cases([make_case(seed) for seed in range(5)], tiny_plan())


class Lazy:
    """Gives a new object each time, as a cache on a disk does, and counts."""

    def __init__(self, cases):
        self.cases, self.taken = cases, 0

    def __len__(self):
        return len(self.cases)

    def __getitem__(self, index):
        self.taken += 1
        return replace(self.cases[index])


def test_places_are_those_of_the_parts_in_order():
    joined = JoinedCases((CASES[:2], [], CASES[2:]))
    assert len(joined) == 5
    assert [joined[index] for index in range(5)] == CASES == list(joined)
    assert joined[-1] is CASES[-1] and joined[1:4] == CASES[1:4]
    for index in (5, -6):
        with pytest.raises(IndexError):
            joined[index]
    assert joined.turns == [0, 1, 2, 3, 4]
    assert JoinedCases((CASES[:2], CASES[2:]), (3, 1)).turns == [0, 1, 0, 1, 0, 1, 2, 3, 4]
    assert len(JoinedCases(())) == 0


def test_nothing_is_taken_before_it_is_asked_for():
    lazy = Lazy(CASES[:2])
    joined = JoinedCases((lazy, CASES[2:]), (2, 1))
    assert lazy.taken == 0
    sampler = PatchSampler(joined, tiny_plan(), 0)
    assert lazy.taken == 2, "once each, to see where patches may lie"
    drawn = [sampler._draw_place()[0].number for _ in range(70)]
    assert [drawn.count(number) for number in range(5)] == [20, 20, 10, 10, 10]
