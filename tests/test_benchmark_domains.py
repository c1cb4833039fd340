"""Simulated domains are what they say, and no subject is in two parts of any cell of the benchmark."""

from itertools import combinations, product

import numpy as np
import pytest

from dafne_dante.annotations.case import Case
from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.simulated import TARGET_NAMES, simulated_source, simulated_target
from dafne_dante.benchmark.splits import PRETRAININGS, divide_subjects, most_shots, separate, split_cases
from dafne_dante.errors import AnnotationError, IncompatibleModelError, NotEnoughCasesError, SettingsError

VOXEL_MM = 7.0


@pytest.fixture(scope="module")
def targets():
    return {name: simulated_target(name, 1, VOXEL_MM) for name in TARGET_NAMES}


@pytest.fixture(scope="module")
def source():
    return simulated_source(1, VOXEL_MM)


def plain_domain(name, people, labels=("a",), *, cases_each=1):
    """A domain of tiny cases; the intensity tells the person."""
    cases, subjects = [], []
    for person, _ in product(people, range(cases_each)):
        image = np.full((1, 2, 2, 2), float(person), dtype=np.float32)
        empty = np.zeros((2, 2, 2), dtype=np.uint8)
        cases.append(Case(f"{name}-{len(cases)}", image, empty, np.ones(2, dtype=bool), np.eye(4), labels))
        subjects.append(f"person {person}")
    return Domain(name, labels, cases, tuple(subjects))


def volume_ml(case, label):
    return (case.segmentation == label).sum() * np.prod(case.spacing_mm) / 1000


def mean_in(case, label):
    return case.image[0][case.segmentation == label].mean()


def test_the_source_has_the_volumes_of_its_structures(source):
    case = source.cases[0]
    assert case.labels == ("cortex", "white matter", "deep grey matter", "cerebellum", "brainstem")
    bounds = {1: (450, 1200), 2: (350, 750), 3: (20, 70), 4: (80, 300), 5: (8, 50)}
    for label, (least, most) in bounds.items():
        assert least < volume_ml(case, label) < most, case.labels[label - 1]


def test_structures_lie_where_they_belong(source):
    def centre_mm(label):
        case = source.cases[0]
        return (case.affine @ [*np.argwhere(case.segmentation == label).mean(axis=0), 1])[:3]

    cerebrum, deep, cerebellum, brainstem = (centre_mm(label) for label in (2, 3, 4, 5))
    assert cerebellum[2] < deep[2] - 20, "the cerebellum is below"
    assert cerebellum[1] < brainstem[1] - 10, "and behind the brainstem"
    assert all(abs(centre[0]) < 8 for centre in (cerebrum, deep, cerebellum, brainstem)), "all are in the middle"


def test_the_contrast_is_turned_round(source, targets):
    cortex, white = (mean_in(source.cases[0], label) for label in (1, 2))
    assert cortex < 0.9 * white
    cortex, white = (mean_in(targets["contrast"].cases[0], label) for label in (1, 2))
    assert white < 0.9 * cortex


def test_slices_are_thick_and_noise_is_strong(source, targets):
    x, _, z = targets["thick-slices"].cases[0].spacing_mm
    assert z == pytest.approx(3 * x)

    def spread(case):
        white = case.image[0][case.segmentation == 2]
        return white.std() / white.mean()

    assert spread(targets["bias-noise"].cases[0]) > 1.5 * spread(source.cases[0])


def test_one_of_the_new_labels_stays_and_the_others_have_their_volumes(source, targets):
    case = targets["new-labels"].cases[0]
    assert case.labels == ("deep grey matter", "frontal cortex", "fluid")
    assert volume_ml(case, 1) == pytest.approx(volume_ml(source.cases[0], 3), rel=0.5)
    assert 80 < volume_ml(case, 2) < 400
    assert 10 < volume_ml(case, 3) < 150


def test_lesions_are_few_voxels_dark_in_white_matter_and_a_subject_s_own(targets):
    case = targets["lesions"].cases[0]
    assert case.labels == ("lesion",)
    assert 3 < volume_ml(case, 1) < 60
    healthy_white = simulated_source(1, VOXEL_MM).cases[0]
    assert mean_in(case, 1) < 0.85 * mean_in(healthy_white, 2)
    other = simulated_target("lesions", 2, VOXEL_MM).cases[1]
    assert not np.array_equal(other.segmentation, case.segmentation)
    again = simulated_target("lesions", 1, VOXEL_MM).cases[0]
    assert np.array_equal(again.segmentation, case.segmentation)


def test_a_target_that_does_not_exist_is_told(targets):
    with pytest.raises(SettingsError, match="expected a target from contrast"):
        simulated_target("unknown", 1, VOXEL_MM)


def test_a_domain_knows_who_each_case_shows():
    domain = plain_domain("one", range(3), cases_each=2)
    assert [case.case_id for case in domain.of({"person 1"})] == ["one-2", "one-3"]
    assert domain.without({"person 0", "person 2"}).subjects == ("person 1", "person 1")
    with pytest.raises(AnnotationError, match="one subject for each case"):
        Domain("one", ("a",), domain.cases, ("person 1",))
    with pytest.raises(IncompatibleModelError, match="labelled b, found a"):
        Domain("one", ("b",), domain.cases, domain.subjects)


def everybody(split):
    """Parts by name, as sets of people told from their images, not from the split's own account."""
    parts = {
        "training": split.training,
        "selection": split.selection,
        "test": split.test,
        "source test": split.source_test,
    }
    return {name: {float(case.image[0, 0, 0, 0]) for case in cases} for name, cases in parts.items()}


@pytest.mark.parametrize(("shots", "pretraining"), list(product([None, 1, 2, 4], PRETRAININGS)))
def test_no_subject_is_in_two_parts_of_any_cell(shots, pretraining):
    source = plain_domain("source", range(12), cases_each=2)
    targets = [plain_domain("one", range(9, 30)), plain_domain("two", range(100, 114), cases_each=3)]
    alone = separate(source, targets)
    for target, seed in product(targets, range(6)):
        split = split_cases(alone, target, seed=seed, shots=shots, pretraining=pretraining)
        people = everybody(split)
        pretrained = split.source_subjects.training + split.source_subjects.selection
        people["pretraining"] = {float(name.removeprefix("person ")) for name in pretrained}
        assert all(people.values()), "no part is empty"
        for (one, some), (other, others) in combinations(people.items(), 2):
            assert not some & others, f"{one} and {other} share somebody"
        if shots is not None:
            assert len(people["training"]) == shots


def test_fewer_shots_are_the_beginning_of_more_and_test_subjects_stay():
    source, target = plain_domain("source", range(6)), plain_domain("target", range(10, 20))
    splits = [split_cases(source, target, seed=3, shots=shots, pretraining="rich") for shots in (1, 2, 4, None)]
    for few, more in combinations(splits, 2):
        assert few.subjects.training == more.subjects.training[: len(few.subjects.training)]
        assert few.subjects.test == more.subjects.test
        assert few.subjects.selection == more.subjects.selection
    assert most_shots(target) == len(splits[-1].training) == 5
    small = split_cases(source, target, seed=3, shots=1, pretraining="small")
    assert small.source_subjects.training == splits[0].source_subjects.training[:2]
    assert len(splits[0].source_subjects.training) > 2


def test_another_seed_divides_otherwise_and_the_same_seed_alike():
    domain = plain_domain("target", range(20))
    assert divide_subjects(domain, 1) == divide_subjects(domain, 1)
    assert divide_subjects(domain, 1).selection != divide_subjects(domain, 2).selection
    assert set(divide_subjects(domain, 1).training[:6]) != set(divide_subjects(domain, 2).training[:6])


def test_who_is_tested_in_one_seed_teaches_and_chooses_in_none():
    domain = plain_domain("target", range(20))
    parts = [divide_subjects(domain, seed) for seed in range(12)]
    assert {part.test for part in parts} == {parts[0].test}
    assert len(parts[0].test) == 6
    taught = {subject for part in parts for subject in (*part.training, *part.selection)}
    assert not taught & set(parts[0].test)
    assert len({part.selection for part in parts}) > 6


def test_too_few_subjects_are_refused():
    with pytest.raises(NotEnoughCasesError, match="3 subjects in target"):
        divide_subjects(plain_domain("target", range(2)), 0)
    with pytest.raises(NotEnoughCasesError, match="who are in no target, found 1"):
        separate(plain_domain("source", range(5)), [plain_domain("target", range(1, 9))])
    source, target = plain_domain("source", range(5)), plain_domain("target", range(10, 14))
    with pytest.raises(NotEnoughCasesError, match="expected 1 to 2 shots of target, found 4"):
        split_cases(source, target, seed=0, shots=4, pretraining="rich")
