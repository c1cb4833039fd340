"""From studies to cases: labels by name, slices that count, and an account of everything."""

import numpy as np
import pytest
from sites import write_cases
from studies import SHAPE, DrawnStudy, block

from dafne_dante.annotations.collect import collect, sentences
from dafne_dante.annotations.labels import LabelNames
from dafne_dante.annotations.reading import Reading, pseudonym, read_case
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.annotations.study import Found, Left
from dafne_dante.errors import (
    AnnotationError,
    NotEnoughCasesError,
    StorageError,
    TrustError,
    UnknownLabelError,
    UnreadableImageError,
)

LABELS = ("bone", "fat")


def study(name="a", **options):
    return DrawnStudy(name, {"fat": block(1, 3), "bone": block(5, 8)}, **options)


def test_values_follow_the_labels_asked_for():
    case, notes = read_case(study(), LABELS)
    assert case.labels == LABELS
    assert (case.segmentation[block(5, 8)] == 1).all()
    assert (case.segmentation[block(1, 3)] == 2).all()
    assert (notes.unknown, notes.absent, notes.annotated, notes.slices) == ((), (), 8, 8)
    assert read_case(study())[0].labels == ("fat", "bone")


@pytest.mark.parametrize(
    ("source", "said", "wish", "annotated"),
    [
        ("background", None, None, [1] * 8),
        ("unknown", None, None, [0, 1, 1, 0, 0, 1, 1, 1]),
        ("background", None, "unknown", [0, 1, 1, 0, 0, 1, 1, 1]),
        ("unknown", None, "background", [1] * 8),
        ("background", [0, 1, 1, 1, 0, 1, 1, 1], None, [0, 1, 1, 1, 0, 1, 1, 1]),
        ("background", [0, 1, 1, 1, 0, 1, 1, 1], "background", [0, 1, 1, 1, 0, 1, 1, 1]),
    ],
)
def test_which_slices_count_as_labelled(source, said, wish, annotated):
    said = None if said is None else np.array(said, bool)
    case, notes = read_case(study(empty_slices=source, annotated=said), LABELS, Reading(empty_slices=wish))
    assert case.annotated.tolist() == [bool(value) for value in annotated]
    assert notes.annotated == sum(annotated)


def test_a_mask_on_a_slice_that_nobody_labelled_is_a_contradiction():
    with pytest.raises(AnnotationError, match="masks on labelled slices only"):
        read_case(study(annotated=np.arange(8) > 1), LABELS)


def test_a_study_without_a_labelled_slice_teaches_nothing():
    empty = DrawnStudy("a", dict.fromkeys(LABELS, np.zeros(SHAPE, bool)), empty_slices="unknown")
    with pytest.raises(NotEnoughCasesError, match="at least one labelled slice"):
        read_case(empty)


def test_a_missing_label_is_a_fault_unless_it_counts_as_absent():
    only_fat = DrawnStudy("a", {"fat": block(1, 3)})
    with pytest.raises(UnknownLabelError, match=r"a: .*labels bone, fat, found fat; .*missing_labels"):
        read_case(only_fat, LABELS)
    case, notes = read_case(only_fat, LABELS, Reading(missing_is_absent=True))
    assert notes.absent == ("bone",)
    assert set(np.unique(case.segmentation)) == {0, 2}
    with pytest.raises(UnknownLabelError, match=r"\[labels\]"):
        read_case(DrawnStudy("a", {"grease": block(1, 3)}), LABELS, Reading(missing_is_absent=True))


def test_a_structure_that_the_model_does_not_know_is_told_and_hides_nothing():
    body = DrawnStudy("a", {"fat": block(1, 3), "bone": block(5, 8), "whole body": np.ones(SHAPE, bool)})
    case, notes = read_case(body, LABELS)
    assert notes.unknown == ("whole body",)
    assert (case.segmentation == read_case(study(), LABELS)[0].segmentation).all()


def test_one_image_has_one_id_and_only_the_key_tells_it():
    image = read_case(study(), LABELS)[0].image
    assert pseudonym(image, b"k") == pseudonym(image.copy(), b"k") != pseudonym(image, b"other")
    assert pseudonym(image, b"k") != pseudonym(image + 1, b"k")
    assert pseudonym(image, b"k") != pseudonym(image.reshape(1, 5, 6, 8), b"k")
    with pytest.raises(TrustError, match="found an empty one"):
        pseudonym(image, b"")


def test_what_is_sound_is_taken_and_the_rest_is_left_with_its_reason():
    found = Found(
        (
            study("a"),
            study("broken", fault=UnreadableImageError("broken.nii: expected a whole file, found half")),
            study("copy of a"),
            study("b", brightness=7.0),
            DrawnStudy("c", {"fat": block(1, 3)}, brightness=8.0),
            study("d", brightness=9.0, contrasts=2),
            study("e", fault=StorageError("cannot read e.nii: permission denied")),
        ),
        (Left("series 2 of 5", "an image without labels"),),
    )
    collection = collect(found, LABELS)
    assert [taken.name for taken in collection.taken] == ["a", "b"]
    assert [case.case_id for case in collection.cases] == [taken.case_id for taken in collection.taken]
    assert [left.name for left in collection.left] == ["series 2 of 5", "broken", "copy of a", "c", "d", "e"]
    lines = sentences(collection)
    assert lines[-1] == "took 2 cases, left 6"
    assert "left series 2 of 5: an image without labels" in lines
    assert "left broken: broken.nii: expected a whole file, found half" not in lines, "the name once"
    assert "left broken.nii: expected a whole file, found half" in lines
    assert any("copy of a" in line and "taken already" in line for line in lines)
    assert any("left d: expected 1 contrast(s), found 2" in line for line in lines)


def test_remarks_tell_what_a_person_should_know():
    found = Found(
        (
            DrawnStudy("a", {"fat": block(1, 3), "tumour": block(0, 8)}, empty_slices="unknown", notes=("a gap",)),
            study("b", brightness=3.0),
        )
    )
    lines = sentences(collect(found, LABELS, Reading(missing_is_absent=True)))
    assert lines == [
        "took a: a gap",
        "took a: 2 of 8 slices count as labelled, the others as unknown",
        "took a: left out tumour, which the model does not know",
        "took a: has no bone, which counts as absent",
        "took 2 cases, left 0",
    ]


def test_without_a_model_the_labels_are_those_of_all_studies():
    found = Found(
        (
            DrawnStudy("a", {"Fat": block(1, 3), "bone": block(5, 8), "couch": block(0, 1)}),
            DrawnStudy("b", {"bone": block(1, 3), "grease": block(5, 8)}, brightness=5.0),
        )
    )
    reading = Reading(LabelNames({"fat": ("grease",)}, ignored=("couch",)))
    collection = collect(found, None, reading)
    assert [case.labels for case in collection.cases] == [("bone", "fat")] * 2, "as the table spells them"
    assert (collection.cases[1].segmentation[block(5, 8)] == 2).all()


def nifti_dataset(folder):
    """Three studies of one dataset, the second of them truncated, as a search gives them."""
    write_cases(folder, (1, 2, 3))
    victim = sorted((folder / "imagesTr").iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:-20])
    return find_studies_in([folder])


def test_a_fault_in_a_dataset_leaves_all_of_it_and_costs_the_others_nothing(tmp_path):
    found = nifti_dataset(tmp_path / "set")
    with pytest.raises(NotEnoughCasesError, match=r"left c2_0000\.nii\.gz: expected a whole compressed file"):
        collect(found)
    alone = DrawnStudy("alone", {label: block(1, 3) for label in found.studies[0].labels})
    mixed = collect(Found((alone,)) + found)
    assert [taken.name for taken in mixed.taken] == ["alone"]
    assert sentences(mixed)[-2:] == [
        "left set: 2 more of this dataset; correct it, or skip faulty studies",
        "took 1 case, left 2",
    ]


def test_faulty_studies_of_a_dataset_are_skipped_on_demand(tmp_path):
    collection = collect(nifti_dataset(tmp_path / "set"), skip_faulty=True)
    assert [taken.name for taken in collection.taken] == ["c1", "c3"]
    assert [left.name for left in collection.left] == ["c2"]


def test_with_nothing_to_use_the_first_reason_is_told():
    with pytest.raises(NotEnoughCasesError, match="found none"):
        collect(Found(), LABELS)
    with pytest.raises(NotEnoughCasesError, match=r"left x: y$"):
        collect(Found((), (Left("x", "y"),)), LABELS)
