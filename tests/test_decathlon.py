"""The Decathlon's layout: pairs that dataset.json lists, contrasts along the fourth axis, and paths that lead away."""

import json

import numpy as np
import pytest
from oriented import AFFINE, ALL_ORIENTATIONS, image_array, label_array, oblique, turned, write
from test_folders import describe, plain

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.folders import find_studies
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.errors import AnnotationError

LABELS = {"0": "background", "1": "left", "2": "top"}
PAIRS = {"img01": "label01", "img02": "label02"}


def listed(pairs):
    return [
        {"image": f"./imagesTr/{image}.nii.gz", "label": f"./labelsTr/{label}.nii.gz"} for image, label in pairs.items()
    ]


def decathlon(folder, pairs=None, training=None, modalities=1):
    """Images and labels under names of their own; the second image is brighter."""
    pairs = PAIRS if pairs is None else pairs
    for number, (image, label) in enumerate(pairs.items()):
        contrasts = [image_array() * (1 + one) + number for one in range(modalities)]
        array = contrasts[0] if modalities == 1 else np.stack(contrasts, axis=-1)
        write(folder / "imagesTr" / f"{image}.nii.gz", array)
        write(folder / "labelsTr" / f"{label}.nii.gz", label_array())
    describe(
        folder, labels=LABELS, tensorImageSize="4D", numTraining=len(pairs), test=["./imagesTs/x.nii.gz"],
        modality={str(number): f"MRI {number}" for number in range(modalities)},
        training=listed(pairs) if training is None else training,
    )  # fmt: skip
    return folder


def test_the_list_pairs_what_is_called_differently(tmp_path):
    assert [(one.name, one.images[0].name) for one in find_studies(decathlon(tmp_path / "site"))] == [
        ("label01", "img01.nii.gz"), ("label02", "img02.nii.gz"),
    ]  # fmt: skip


@pytest.mark.parametrize("orientation", [0, 17, 44])
@pytest.mark.parametrize("modalities", [1, 2])
def test_a_listed_pair_agrees_voxel_for_voxel_with_plain_files(tmp_path, modalities, orientation):
    folder = decathlon(tmp_path / "site", {"img": "label"}, modalities=modalities)
    affine = oblique(AFFINE)
    plain(tmp_path / "plain", ("a",))
    for name in ("image", "mask_left", "mask_top"):
        array = {"image": image_array(), "mask_left": label_array() == 1, "mask_top": label_array() == 2}[name]
        write(tmp_path / "plain/a" / f"{name}.nii.gz", array.astype(np.float32), affine)
    if modalities == 2:
        write(tmp_path / "plain/a/image2.nii.gz", 2 * image_array(), affine)
    stored = [turned((one + 1) * image_array(), affine, ALL_ORIENTATIONS[orientation]) for one in range(modalities)]
    stacked = np.stack([array for array, _ in stored], axis=-1)
    write(folder / "imagesTr/img.nii.gz", stacked, stored[0][1])
    write(folder / "labelsTr/label.nii.gz", *turned(label_array(), affine, ALL_ORIENTATIONS[47 - orientation]))
    (case,), (same,) = (collect(find_studies_in([one])).cases for one in (folder, tmp_path / "plain"))
    np.testing.assert_allclose(case.affine, same.affine, atol=1e-4)
    for name in ("image", "segmentation", "annotated"):
        np.testing.assert_array_equal(getattr(case, name), getattr(same, name))


def test_lists_of_nnunet_that_leave_out_the_number_do_no_harm(tmp_path):
    """nnU-Net 1 lists `imagesTr/a.nii.gz` where the file is called a_0000.nii.gz."""
    folder = decathlon(tmp_path / "site", {"a": "a"})
    (folder / "imagesTr/a.nii.gz").rename(folder / "imagesTr/a_0000.nii.gz")
    assert [path.name for path in find_studies(folder)[0].images] == ["a_0000.nii.gz"]


OUTSIDE = [
    "../secret.nii.gz", "./imagesTr/../../secret.nii.gz", "imagesTr/../secret.nii.gz", "{folder}/secret.nii.gz",
    "./imagesTs/img01.nii.gz", "imagesTr\\img01.nii.gz", "./imagesTr/", "", ".", "imagesTr/\0.nii.gz", 5, None, [],
    {"a": "./imagesTr/img01.nii.gz"}, "././imagesTr/img01.nii.gz", "x" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("place", OUTSIDE, ids=range(len(OUTSIDE)))
def test_a_path_that_leads_anywhere_else_pairs_nothing(tmp_path, place):
    """Not even with the file that it names: without a pair the names decide, and here they do not fit."""
    if isinstance(place, str):
        place = place.replace("{folder}", str(tmp_path))
    write(tmp_path / "secret.nii.gz", image_array())
    folder = decathlon(tmp_path / "site", training=[{"image": place, "label": "./labelsTr/label01.nii.gz"}])
    with pytest.raises(AnnotationError, match=r"expected 1 image files label01_0000\.nii\.gz") as caught:
        find_studies(folder)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("training", [{}, [], "x", [5, None, [[]]], [{}], [{"image": "./imagesTr/img01.nii.gz"}]])
def test_a_list_that_is_none_pairs_nothing(tmp_path, training):
    with pytest.raises(AnnotationError, match="expected 1 image files"):
        find_studies(decathlon(tmp_path / "site", training=training))
    assert len(find_studies(decathlon(tmp_path / "same", {"a": "a", "b": "b"}, training))) == 2


BAD_LISTS = {
    "one image for two": (listed({"img01": "label01"}) + listed({"img01": "label02"}), "one in two"),
    "two images for one": (listed({"img01": "label01"}) + listed({"img02": "label01"}), "one in two"),
}


@pytest.mark.parametrize(("training", "words"), BAD_LISTS.values(), ids=BAD_LISTS.keys())
def test_a_list_that_contradicts_itself_is_refused(tmp_path, training, words):
    with pytest.raises(AnnotationError, match=f"dataset.json: expected every file in one pair.*{words}"):
        find_studies(decathlon(tmp_path / "site", training=training))


def test_a_list_that_contradicts_the_names_is_refused(tmp_path):
    folder = decathlon(tmp_path / "site", {"a": "a", "b": "b"}, listed({"a": "b", "b": "a"}))
    with pytest.raises(AnnotationError, match=r"to list a\.nii\.gz as the image of a, found b\.nii\.gz"):
        find_studies(folder)


def test_the_same_pair_twice_is_one(tmp_path):
    assert len(find_studies(decathlon(tmp_path / "site", training=listed(PAIRS) * 2))) == 2


def test_what_is_listed_and_not_there_is_no_study(tmp_path):
    folder = decathlon(tmp_path / "site", training=listed({**PAIRS, "img03": "label03"}))
    assert len(find_studies(folder)) == 2
    (folder / "labelsTr/label02.nii.gz").unlink()
    with pytest.raises(AnnotationError, match=r"for every image, found none for img02\.nii\.gz"):
        find_studies(folder)


def test_a_fourth_axis_of_one_is_one_contrast(tmp_path):
    folder = decathlon(tmp_path / "site", {"a": "a"})
    write(folder / "imagesTr/a.nii.gz", image_array()[..., None])
    write(folder / "labelsTr/a.nii.gz", label_array()[..., None])
    (case,) = collect(find_studies_in([folder])).cases
    np.testing.assert_array_equal(case.image, image_array()[None])
    np.testing.assert_array_equal(case.segmentation, label_array())


def test_more_contrasts_than_an_image_can_have_are_refused(tmp_path):
    folder = decathlon(tmp_path / "site", {"a": "a"})
    facts = json.loads((folder / "dataset.json").read_text())
    facts["modality"] = {str(number): "MRI" for number in range(17)}
    (folder / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(AnnotationError, match="1 to 16 entries"):
        find_studies(folder)
