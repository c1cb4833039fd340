"""What a store drops: the oldest first, and the newest never for its size."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dafne_dante.annotations.store.retention import Limits, beyond_limits
from dafne_dante.errors import SettingsError

DAY = 86_400 * 10**9


@dataclass(frozen=True)
class Item:
    case_id: str
    saved_ns: int
    file_bytes: int = 10


THREE = [Item("b", 2 * DAY), Item("a", 1 * DAY), Item("c", 3 * DAY)]


@pytest.mark.parametrize(("limits", "now", "dropped"), [
    (Limits(), 3, ()), (Limits(cases=3), 3, ()), (Limits(cases=2), 3, ("a",)), (Limits(cases=1), 3, ("a", "b")),
    (Limits(max_bytes=30), 3, ()), (Limits(max_bytes=29), 3, ("a",)), (Limits(max_bytes=1), 3, ("a", "b")),
    (Limits(days=2), 3, ()), (Limits(days=2), 3.5, ("a",)), (Limits(days=1), 9, ("a", "b", "c")),
    (Limits(cases=2, days=1), 3.5, ("a", "b")),
])  # fmt: skip
def test_the_oldest_go_first(limits, now, dropped):
    assert beyond_limits(THREE, limits, now_ns=int(now * DAY)) == dropped


def test_cases_of_one_moment_go_by_their_ids():
    assert beyond_limits([Item(name, 5) for name in "cab"], Limits(cases=1), now_ns=5) == ("a", "b")


def test_an_empty_store_drops_nothing():
    assert beyond_limits([], Limits(cases=1), now_ns=0) == ()


items = st.lists(
    st.builds(Item, st.uuids().map(str), st.integers(0, 400 * DAY), st.integers(1, 1000)), unique_by=lambda i: i.case_id
)


@given(items, st.integers(1, 5), st.floats(0.5, 400), st.integers(1, 3000))
def test_what_stays_is_within_the_limits_and_younger_than_what_goes(kept, cases, days, max_bytes):
    limits, now = Limits(cases, days, max_bytes), 400 * DAY
    dropped = beyond_limits(kept, limits, now_ns=now)
    stays = [item for item in kept if item.case_id not in dropped]
    goes = {item.case_id: item for item in kept if item.case_id in dropped}
    assert len(stays) <= cases
    assert sum(item.file_bytes for item in stays) <= max_bytes or len(stays) == 1
    assert all(item.saved_ns >= now - int(days * DAY) for item in stays)
    assert [goes[name] for name in dropped] == sorted(goes.values(), key=lambda item: (item.saved_ns, item.case_id))
    assert all(old.saved_ns <= young.saved_ns for old in goes.values() for young in stays)
    assert beyond_limits(stays, limits, now_ns=now) == ()


@pytest.mark.parametrize("wrong", [{"cases": 0}, {"days": 0}, {"days": float("nan")}, {"max_bytes": 0}])
def test_limits_that_keep_nothing_are_refused(wrong):
    with pytest.raises(SettingsError, match="keep"):
        Limits(**wrong)
