"""Folders of DICOM files: every image finds what was drawn on it, and every file that is not taken has its reason."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_labels import (
    as_multi_frame,
    contours_of,
    dafne_export,
    image_slices,
    laid_over,
    phantom_masks,
    random_affine,
    save,
    segmentation,
    structure_set,
)
from oriented import oblique, world_values, write
from pydicom.uid import generate_uid

from dafne_dante.annotations.dicom.studies import find_dicom_studies
from dafne_dante.annotations.grid import lay_onto
from dafne_dante.annotations.nifti.image import read_image, read_label_values
from dafne_dante.errors import GeometryMismatchError, UnknownLabelError

SHAPE = (13, 10, 7)
AFFINE = oblique(np.array([[-1.5, 0, 0, 9], [0, -1.2, 0, 8], [0, 0, 3, -7], [0, 0, 0, 1.0]]))
MASKS = phantom_masks(SHAPE)


def numbered(shape=SHAPE):
    return np.arange(np.prod(shape)).reshape(shape)


def image(folder, affine=AFFINE, volume=None, order=None, **elements):
    """A series in the folder, its files named in any order; the datasets in the order of the slices."""
    slices = image_slices(numbered() if volume is None else volume, affine, **elements)
    order = range(len(slices)) if order is None else order
    for number, index in enumerate(order):
        save(slices[index], folder / f"slice{number}.dcm")
    return slices


def found_in(folder, **options):
    return find_dicom_studies(sorted(path for path in folder.rglob("*") if path.is_file()), **options)


def only_study(folder, **options):
    found = found_in(folder, **options)
    assert found.left == ()
    (study,) = found.studies
    return study


def drawn(study):
    """World coordinates to the number of the label, in the order of its labels."""
    labelled = study.read({label: value for value, label in enumerate(study.labels, 1)})
    return world_values(labelled.segmentation, labelled.grid.affine)


def regions(masks=MASKS, affine=AFFINE):
    return [(name, contours_of(mask, affine)) for name, mask in masks.items()]


def reasons(found):
    return {left.name: left.reason for left in found.left}


@pytest.mark.parametrize("kind", ["segmentation", "structures"])
def test_image_and_labels_agree_with_the_nifti_route_for_random_oblique_series(tmp_path, kind):
    for seed in range(20):
        affine = random_affine(seed)
        folder = tmp_path / str(seed)
        slices = image(folder / "image", affine, order=np.random.default_rng(seed).permutation(SHAPE[2]))
        labels = (
            segmentation(slices, MASKS) if kind == "segmentation" else structure_set(slices, regions(affine=affine))
        )
        save(labels, folder / "labels.dcm")
        study = only_study(folder)
        labelled = study.read({"early": 1, "late": 2})
        nifti = read_image([write(folder / "image.nii.gz", numbered().astype(np.int16), affine)])
        labels = read_label_values(write(folder / "labels.nii.gz", laid_over(MASKS).astype(np.uint8), affine), nifti)
        onto = lay_onto("labels", labels, nifti.affine, labelled.grid)
        np.testing.assert_array_equal(labelled.segmentation, onto)
        np.testing.assert_array_equal(
            labelled.grid.image[0], lay_onto("image", nifti.image[0], nifti.affine, labelled.grid)
        )


def test_left_stays_left(tmp_path):
    """A box at the patient's left, drawn on slices that run from the head to the feet and from right to left."""
    affine = np.array([[-2.0, 0, 0, 12], [0, -1.5, 0, 5], [0, 0, 3, -4], [0, 0, 0, 1]])
    world_x = affine[0, 0] * np.arange(SHAPE[0]) + affine[0, 3]
    mask = np.zeros(SHAPE, dtype=bool)
    mask[world_x < -6, 2:5, 1:4] = True
    slices = image(tmp_path / "image", affine)
    save(segmentation(slices, {"left": mask}), tmp_path / "labels.dcm")
    labelled = only_study(tmp_path).read({"left": 1})
    assert nib.aff2axcodes(labelled.grid.affine) == ("R", "A", "S")
    assert np.argwhere(labelled.segmentation)[:, 0].max() < 4, "left is where the first axis starts"
    assert labelled.segmentation.sum() == mask.sum()


def test_a_study_says_what_it_is_made_of(tmp_path):
    slices = image(tmp_path / "thigh")
    seg = save(segmentation(slices, MASKS), tmp_path / "labels.dcm")
    study = only_study(tmp_path)
    assert (study.name, study.labels, study.empty_slices) == ("thigh", ("early", "late"), "background")
    assert set(study.files) == {*(tmp_path / "thigh").iterdir(), seg}
    assert not study.read({}).segmentation.any()
    assert set(np.unique(study.read({"late": 9}).segmentation)) == {0, 9}


def test_objects_with_different_labels_are_one_study_and_the_later_lies_above(tmp_path):
    slices = image(tmp_path / "image")
    save(segmentation(slices, {"late": MASKS["late"]}, time="130000"), tmp_path / "a.dcm")
    save(segmentation(slices, {"early": MASKS["early"]}, time="120000.5"), tmp_path / "b.dcm")
    study = only_study(tmp_path)
    assert study.labels == ("early", "late")
    assert drawn(study) == world_values(laid_over(MASKS), AFFINE)


def test_of_two_versions_of_a_label_the_later_counts_and_the_earlier_is_told(tmp_path):
    slices = image(tmp_path / "image")
    save(segmentation(slices, {"Liver": MASKS["late"], "early": MASKS["early"]}, time="090000"), tmp_path / "a.dcm")
    save(segmentation(slices, {"liver": MASKS["early"]}, time="080000"), tmp_path / "b.dcm")
    save(segmentation(slices, {"spleen": MASKS["early"], "LIVER": MASKS["early"]}, time="070000"), tmp_path / "c.dcm")
    found = found_in(tmp_path)
    assert reasons(found) == {
        "b.dcm": "a later version of liver counts, that in a.dcm",
        "c.dcm": "a later version of LIVER counts, that in a.dcm",
    }
    assert found.studies[0].labels == ("spleen", "Liver", "early")
    liver = found.studies[0].read({"Liver": 1})
    assert world_values(liver.segmentation, liver.grid.affine) == world_values(MASKS["late"].astype(int), AFFINE)


def test_of_two_versions_that_are_drawn_at_once_neither_counts_and_no_earlier_one(tmp_path):
    slices = image(tmp_path / "image")
    for name, time in (("a.dcm", "120000"), ("b.dcm", "120000"), ("c.dcm", "110000")):
        save(segmentation(slices, {"liver": MASKS["late"], f"in {name}": MASKS["early"]}, time=time), tmp_path / name)
    found = found_in(tmp_path)
    assert found.studies[0].labels == ("in c.dcm", "in a.dcm", "in b.dcm")
    assert set(reasons(found)) == {"a.dcm", "b.dcm", "c.dcm"}
    assert "expected one version of liver, found several" in reasons(found)["a.dcm"]


def test_labels_go_to_the_image_that_they_refer_to_though_another_has_the_same_grid(tmp_path):
    frame = generate_uid()
    first = image(tmp_path / "first", FrameOfReferenceUID=frame)
    second = image(tmp_path / "second", FrameOfReferenceUID=frame)
    save(segmentation(second, {"seen": MASKS["early"]}), tmp_path / "seg.dcm")
    save(structure_set(first, [("drawn", contours_of(MASKS["late"], AFFINE))]), tmp_path / "rt.dcm")
    found = found_in(tmp_path)
    assert {study.name: study.labels for study in found.studies} == {"first": ("drawn",), "second": ("seen",)}


def test_labels_on_an_image_that_is_not_here_go_to_the_only_one_on_the_same_grid(tmp_path):
    frame = generate_uid()
    gone = image_slices(numbered(), AFFINE, FrameOfReferenceUID=frame)
    save(segmentation(gone, MASKS), tmp_path / "seg.dcm")
    image(tmp_path / "coarse", random_affine(1), FrameOfReferenceUID=frame)
    image(tmp_path / "same", FrameOfReferenceUID=frame)
    found = found_in(tmp_path)
    assert [study.name for study in found.studies] == ["same"]
    image(tmp_path / "same too", FrameOfReferenceUID=frame)
    assert "expected one image for these labels, found 2 alike" in reasons(found_in(tmp_path))["seg.dcm"]


def test_a_series_can_be_chosen_by_its_identifier_and_by_its_description(tmp_path):
    frame = generate_uid()
    drawn_on = image(tmp_path / "water", FrameOfReferenceUID=frame, SeriesDescription="Dixon W")
    chosen = image(tmp_path / "fat", FrameOfReferenceUID=frame, SeriesDescription="Dixon F")
    save(segmentation(drawn_on, MASKS), tmp_path / "seg.dcm")
    for series in (" dixon f ", chosen[0].SeriesInstanceUID):
        found = found_in(tmp_path, series=series)
        assert [study.name for study in found.studies] == ["fat"]
        assert reasons(found) == {"water": "an image of a series that was not chosen"}
        assert drawn(found.studies[0]) == world_values(laid_over(MASKS), AFFINE)
    found = found_in(tmp_path, series="T2")
    assert found.studies == ()
    assert set(reasons(found)) == {"water", "fat", "seg.dcm"}


def other_frame(slices):
    for one in slices:
        one.FrameOfReferenceUID = "1.2.3.4"
    return slices


NOT_TAKEN = {
    "an image without labels": (lambda slices: None, {"image": "an image without labels"}),
    "another frame of reference": (
        lambda slices: segmentation(other_frame(slices), MASKS),
        {"labels.dcm": "expected labels in the frame of reference of their image", "image": "an image without labels"},
    ),
    "labels without their image": (
        lambda slices: segmentation(image_slices(numbered(), AFFINE), MASKS),
        {"labels.dcm": "expected an image that these labels refer to or lie on", "image": "an image without labels"},
    ),
    "a region without contours": (
        lambda slices: structure_set(slices, [("liver", [])]),
        {"labels.dcm": "labels.dcm: expected at least one region", "image": "an image without labels"},
    ),
}


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_is_not_taken_is_told(tmp_path, name):
    make, expected = NOT_TAKEN[name]
    labels = make(image(tmp_path / "image"))
    if labels is not None:
        save(labels, tmp_path / "labels.dcm")
    found = found_in(tmp_path)
    assert found.studies == ()
    assert set(reasons(found)) == set(expected)
    for left, words in expected.items():
        assert reasons(found)[left].startswith(words)


def test_labels_that_refer_to_an_image_on_another_grid_are_refused_when_they_are_read(tmp_path):
    slices = image(tmp_path / "image")
    moved = image_slices(numbered(), AFFINE @ np.diag([0.5, 0.5, 1, 1]))
    for one, other in zip(moved, slices, strict=True):
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(one, keyword, other[keyword].value)
    save(segmentation(moved, MASKS), tmp_path / "labels.dcm")
    with pytest.raises(GeometryMismatchError, match=r"labels\.dcm: expected planes on the image's grid"):
        only_study(tmp_path).read({"early": 1})


def test_several_images_in_one_folder_are_numbered(tmp_path):
    for number in range(2):
        slices = image_slices(numbered(), AFFINE)
        for k, one in enumerate(slices):
            save(one, tmp_path / "all" / f"{number}-{k}.dcm")
        save(segmentation(slices, MASKS), tmp_path / "all" / f"labels{number}.dcm")
    assert sorted(study.name for study in found_in(tmp_path).studies) == ["series 1 of 2", "series 2 of 2"]


def test_an_enhanced_multi_frame_image_has_its_labels(tmp_path):
    enhanced = as_multi_frame(image_slices(numbered(), AFFINE))
    save(enhanced, tmp_path / "enhanced.dcm")
    save(segmentation([enhanced], MASKS), tmp_path / "labels.dcm")
    study = only_study(tmp_path)
    assert study.name == "enhanced.dcm"
    assert drawn(study) == world_values(laid_over(MASKS), AFFINE)


def test_dafne_s_export_is_read_though_its_files_pass_for_those_of_the_image(tmp_path):
    slices = image(tmp_path / "image", order=[3, 1, 0, 2, 6, 5, 4], RescaleSlope=2, RescaleIntercept=-100)
    for name, mask in MASKS.items():
        dafne_export(tmp_path / "masks" / name, slices, mask)
    study = only_study(tmp_path)
    assert (study.name, study.labels, study.empty_slices) == ("image", ("early", "late"), "unknown")
    assert drawn(study) == world_values(laid_over(MASKS), AFFINE)
    values = np.unique(study.read({}).grid.image)
    assert len(values) == np.prod(SHAPE), "the image is not mixed with its masks"


def test_dafne_s_export_of_a_compressed_image_has_instances_of_its_own(tmp_path):
    slices = image(tmp_path / "image")
    renamed = [pydicom.Dataset(one) for one in slices]
    for one, other in zip(renamed, slices, strict=True):
        one.file_meta = pydicom.dataset.FileMetaDataset(other.file_meta)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dafne_export(tmp_path / "masks" / "early", renamed, MASKS["early"])
    assert drawn(only_study(tmp_path)) == world_values(MASKS["early"].astype(np.uint16), AFFINE)


def test_dafne_s_compact_export_has_its_names_in_the_legend(tmp_path):
    slices = image(tmp_path / "image")
    apart = {"early": MASKS["early"] & ~MASKS["late"], "late, or so": MASKS["late"]}
    summed = sum((number * mask).astype(np.uint16) for number, mask in enumerate(apart.values(), 1))
    dafne_export(tmp_path / "masks", slices, summed, list(apart))
    study = only_study(tmp_path)
    assert study.labels == ("early", "late, or so")
    assert drawn(study) == world_values(laid_over(apart), AFFINE)


def test_overlapping_labels_in_a_compact_export_are_refused(tmp_path):
    slices = image(tmp_path / "image")
    summed = sum((number * mask).astype(np.uint16) for number, mask in enumerate(MASKS.values(), 1))
    dafne_export(tmp_path / "masks", slices, summed, list(MASKS))
    with pytest.raises(UnknownLabelError, match=r"masks/image\d+\.dcm: expected values that legend\.csv names"):
        only_study(tmp_path).read({"early": 1})


BAD_LEGENDS = {
    "another first line": ("Number,Name\n1,a\n", "expected 'Value,Label'"),
    "no line": ("Value,Label\n", "expected 'Value,Label'"),
    "a number that is none": ("Value,Label\none,a\n", "expected 'Value,Label'"),
    "a name twice": ("Value,Label\n1,a\n2,a\n", "every number and every name once"),
    "no name": ("Value,Label\n1,\n", "expected label names"),
}


@pytest.mark.parametrize("name", BAD_LEGENDS)
def test_a_bad_legend_leaves_the_export(tmp_path, name):
    content, words = BAD_LEGENDS[name]
    slices = image(tmp_path / "image")
    dafne_export(tmp_path / "masks", slices, MASKS["early"], ["a"])
    (tmp_path / "masks" / "legend.csv").write_text(content)
    found = found_in(tmp_path)
    assert found.studies == ()
    assert words in reasons(found)["masks"]


def test_an_image_whose_files_are_named_as_dafne_s_is_an_image(tmp_path):
    slices = image_slices(numbered(), AFFINE)
    for k, one in enumerate(slices):
        save(one, tmp_path / "image" / f"image{k + 1:04d}.dcm")
    save(segmentation(slices, MASKS), tmp_path / "labels.dcm")
    assert drawn(only_study(tmp_path)) == world_values(laid_over(MASKS), AFFINE)
