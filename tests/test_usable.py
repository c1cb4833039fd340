"""What the button calls ready is what a job would take: judged from the headers of the kept cases alone."""

from dataclasses import replace

import pytest
from phantoms import tiny_plan
from stored_cases import stored_case

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.labels import LabelNames
from dafne_dante.annotations.reading import Reading
from dafne_dante.annotations.store.contents import describe
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.annotations.store.stored import find_stored_studies
from dafne_dante.annotations.study import Found
from dafne_dante.errors import NotEnoughCasesError
from dafne_dante.plugin.division import divide
from dafne_dante.plugin.usable import LeftOut, usable_cases

PLAN = replace(tiny_plan(), labels=("bone", "fat"))


def headers(*cases):
    return [describe(case, saved_ns=number) for number, case in enumerate(cases)]


def with_slices(case, count):
    """The first `count` annotated slices stay annotated."""
    kept = case.annotated & (case.annotated.cumsum() <= count)
    segmentation = case.segmentation.copy()
    segmentation[..., ~kept] = 0
    return replace(case, annotated=kept, segmentation=segmentation)


def test_cases_are_counted_by_what_the_model_knows():
    cases = (stored_case(0), stored_case(1), stored_case(2, labels=("bone",)), stored_case(3, labels=("fatt", "liver")))
    found = usable_cases(headers(*cases, stored_case(4, channels=2)), PLAN, Reading())
    assert (found.cases, found.labels, found.more_studies) == (2, ("bone", "fat"), 0)
    assert found.slices == sum(int(case.annotated.sum()) for case in cases[:2])
    assert set(found.left) == {
        LeftOut(1, missing=("fat",)),
        LeftOut(1, missing=("bone", "fat"), unknown=("fatt", "liver")),
        LeftOut(1, contrasts=2),
    }
    assert [(one.name, one.labels) for one in found.suggestions] == [("fatt", ("fat",)), ("liver", ())]


@pytest.mark.parametrize(
    ("reading", "cases"),
    [(Reading(), 0), (Reading(missing_is_absent=True), 1), (Reading(names=LabelNames({"fat": ("liver",)})), 1)],
    ids=["refused", "absent", "mapped"],
)
def test_the_site_s_own_table_and_its_word_on_missing_labels_count(reading, cases):
    found = usable_cases(headers(stored_case(labels=("bone", "liver"))), PLAN, reading)
    assert (found.cases, found.more_studies) == (cases, 1 - cases)


@pytest.mark.parametrize(("slices", "more"), [((), (1, 0)), ((1,), (1, 1)), ((2,), (0, 0)), ((1, 1), (0, 0))])
def test_what_is_ready_can_be_divided_and_what_is_not_cannot(slices, more):
    cases = [with_slices(stored_case(number), count) for number, count in enumerate(slices)]
    found = usable_cases(headers(*cases), PLAN, Reading())
    assert (found.more_studies, found.more_slices) == more
    if found.more_studies:
        with pytest.raises(NotEnoughCasesError):
            divide(cases, seed=0)
    else:
        assert divide(cases, seed=0).folds


@pytest.mark.parametrize("labels", [("bone", "fat"), ("bone",), ("Fat", "bone", "liver"), ("liver",)])
@pytest.mark.parametrize("absent", [False, True])
def test_it_is_the_job_s_own_judgement(tmp_path, labels, absent):
    from stored_cases import KEY

    store = CaseStore(tmp_path, KEY)
    store.add(stored_case(7, labels=labels))
    reading = Reading(missing_is_absent=absent)
    found = usable_cases([case.header for case in store.cases()], PLAN, reading)
    try:
        taken = len(collect(Found(find_stored_studies(store).studies, ()), PLAN.labels, reading).cases)
    except NotEnoughCasesError:
        taken = 0
    assert found.cases == taken
