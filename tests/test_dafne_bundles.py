"""Dafne's bundles: what we write we read back, what Dafne writes we read, and what is hostile is refused."""

from dataclasses import replace

import numpy as np
import pytest
from bundles import bundle, refusal
from oriented import AFFINE, ALL_ORIENTATIONS, SHAPE, image_array, label_array, oblique, turned, world_values
from studies import DrawnStudy, block

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.dafne.bundle import find_bundle_studies
from dafne_dante.annotations.dafne.bundle_writing import write_bundle
from dafne_dante.annotations.reading import Reading, read_case
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.errors import (
    AnnotationError,
    DanteError,
    NotEnoughCasesError,
    StorageError,
)

ANNOTATED = np.arange(SHAPE[2]) != 6
CASE = Case("0" * 16, image_array()[None], label_array(), ANNOTATED, oblique(AFFINE), ("left", "top"))


def read(path, labels=None):
    found = find_bundle_studies([path])
    assert not found.left, found.left
    (study,) = found.studies
    return read_case(study, labels)


def test_what_is_written_is_read_back(tmp_path):
    write_bundle(CASE, tmp_path / "a.npz")
    case, notes = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(case.image, CASE.image)
    np.testing.assert_array_equal(case.segmentation, CASE.segmentation)
    np.testing.assert_array_equal(case.annotated, CASE.annotated)
    np.testing.assert_array_equal(case.affine, CASE.affine)
    assert case.image.dtype == np.float32
    assert case.labels == CASE.labels
    assert notes.remarks == ()
    write_bundle(CASE, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_several_contrasts_are_written_and_read(tmp_path):
    image = np.stack([image_array(), -image_array(), 2 * image_array()])
    write_bundle(replace(CASE, image=image), tmp_path / "a.npz")
    np.testing.assert_array_equal(read(tmp_path / "a.npz")[0].image, image)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["data2"], -image_array())
        assert {"data", "data2", "data3"} <= set(arrays.files)


def test_it_holds_what_stock_dafne_loads(tmp_path):
    """Its loader wants `data`, a resolution whose list it can extend, masks of the same shape, and an affine."""
    write_bundle(CASE, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"data", "mask_left", "mask_top", "resolution", "affine", "annotated"}
        data = arrays["data"]
        data *= 100
        assert len(list(arrays["resolution"])) == 3
        assert arrays["affine"].shape == (4, 4)
        np.testing.assert_allclose(arrays["resolution"], np.linalg.norm(arrays["affine"][:3, :3], axis=0))
        for name in ("mask_left", "mask_top"):
            assert arrays[name].shape == data.shape
            assert arrays[name].dtype == np.uint8
            assert set(np.unique(arrays[name])) == {0, 1}


def test_left_stays_left_under_all_48_orders(tmp_path):
    affine = oblique(AFFINE)
    expected_image, expected_labels = world_values(image_array(), affine), world_values(label_array(), affine)
    for orientation in ALL_ORIENTATIONS:
        image, stored = turned(image_array(), affine, orientation)
        labels, _ = turned(label_array(), affine, orientation)
        annotated = labels.any(axis=(0, 1))
        annotated[0] = True
        path = bundle(tmp_path / "a.npz", data=image, mask_left=labels == 1, mask_top=labels == 2, affine=stored,
                      resolution=np.linalg.norm(stored[:3, :3], axis=0), annotated=annotated)  # fmt: skip
        case, _ = read(path)
        assert world_values(case.image[0], case.affine) == expected_image
        assert world_values(case.segmentation, case.affine) == expected_labels
        assert case.shape[2] == image.shape[2], "Dafne's slices are the last axis"
        ends = (case.affine[:3, 2] @ stored[:3, 2]) / np.linalg.norm(stored[:3, 2]) ** 2
        np.testing.assert_array_equal(case.annotated, annotated[:: round(ends)])


@pytest.mark.parametrize("dtype", ["?", "u1", ">u2", "<i4", "i8", ">f4", "f8", "f2"])
def test_masks_and_images_of_any_number_are_read(tmp_path, dtype):
    small = (image_array() % 97).astype(dtype)
    path = bundle(tmp_path / "a.npz", data=np.asfortranarray(small), mask_left=(label_array() == 1).astype(dtype))
    case, _ = read(path)
    np.testing.assert_array_equal(case.image[0], small)
    np.testing.assert_array_equal(case.segmentation, label_array())


def test_without_affine_the_resolution_counts_and_this_is_told(tmp_path):
    case, notes = read(bundle(tmp_path / "a.npz", affine=None))
    np.testing.assert_array_equal(case.affine, np.diag([2, 1.5, 1.2, 1]))
    np.testing.assert_array_equal(case.segmentation, label_array())
    assert "no affine" in notes.remarks[0]


def test_a_single_slice_has_two_axes(tmp_path):
    arrays = {"mask_left": label_array()[..., 2] == 1, "mask_top": None, "affine": None, "resolution": [2.0, 1.5]}
    case, _ = read(bundle(tmp_path / "a.npz", data=image_array()[..., 2], **arrays))
    assert case.shape == (7, 9, 1)
    assert case.spacing_mm == (2, 1.5, 1)
    np.testing.assert_array_equal(case.segmentation[..., 0], label_array()[..., 2] == 1)


def test_old_bundles_call_the_image_so(tmp_path):
    case, _ = read(bundle(tmp_path / "a.npz", data=None, image=image_array()))
    np.testing.assert_array_equal(case.image[0], image_array())


def test_slices_without_a_mask_are_unknown_unless_the_bundle_says_otherwise(tmp_path):
    case, notes = read(bundle(tmp_path / "a.npz"))
    np.testing.assert_array_equal(case.annotated, label_array().any(axis=(0, 1)))
    assert notes.annotated == 5
    case, _ = read(bundle(tmp_path / "a.npz", annotated=ANNOTATED))
    np.testing.assert_array_equal(case.annotated, ANNOTATED)


def test_masks_beside_the_annotated_slices_are_refused(tmp_path):
    path = bundle(tmp_path / "a.npz", annotated=np.arange(SHAPE[2]) == 2)
    assert "labelled slices only" in refusal(path)


def test_where_masks_overlap_the_later_name_counts(tmp_path):
    path = bundle(tmp_path / "a.npz", mask_top=np.ones(SHAPE))
    assert (read(path)[0].segmentation == 2).all()
    assert (read(path, ("top", "left"))[0].segmentation == 1).all()


def test_no_mask_that_nobody_asked_for_is_opened(tmp_path):
    """A mask of another model may be damaged; the rest is still good."""
    path = bundle(tmp_path / "a.npz", mask_top=np.ones((2, 2, 2)))
    with pytest.raises(DanteError, match="mask_top"):
        read(path)
    np.testing.assert_array_equal(read(path, ("left",))[0].segmentation, label_array() == 1)


def test_bundles_are_found_in_a_tree_beside_other_things(tmp_path):
    bundle(tmp_path / "a.npz")
    (tmp_path / "deeper").mkdir()
    write_bundle(replace(CASE, image=CASE.image + 1), tmp_path / "deeper" / "b.npz")
    np.savez(tmp_path / "masks.npz", left=label_array() == 1, orientation=("L", "P", "S"), affine=AFFINE)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    taken = collect(find_studies_in([tmp_path]), ("left", "top"), Reading(key=b"key"))
    assert [one.name for one in taken.taken] == ["a", "b"]
    np.testing.assert_array_equal(taken.cases[1].annotated, ANNOTATED)
    assert [left.name for left in taken.left] == ["broken.npz", "masks.npz"]
    assert "masks alone" in taken.left[1].reason
    one = collect(find_studies_in([tmp_path / "a.npz"]), None, Reading(key=b"key"))
    assert one.taken[0].case_id == taken.taken[0].case_id


def test_a_study_in_memory_becomes_a_bundle(tmp_path):
    case, _ = read_case(DrawnStudy("a", {"liver (L)": block(2, 5), "T1/2": block(5, 7)}, contrasts=2))
    write_bundle(case, tmp_path / "a.npz")
    again, _ = read(tmp_path / "a.npz", case.labels)
    np.testing.assert_array_equal(again.segmentation, case.segmentation)
    assert find_bundle_studies([tmp_path / "a.npz"]).studies[0].labels == ("T1/2", "liver (L)")


@pytest.mark.parametrize(
    ("labels", "name", "error"),
    [
        (("left", "Left"), "a.npz", AnnotationError),
        (("left", "a\\b"), "a.npz", AnnotationError),
        (("left", "a/../../b"), "a.npz", AnnotationError),
        (("left", "\x1b[2J"), "a.npz", AnnotationError),
        (("left", "top"), "a.zip", StorageError),
        (("left", "top"), "missing/a.npz", StorageError),
    ],
)
def test_what_cannot_be_read_back_is_not_written(tmp_path, labels, name, error):
    with pytest.raises(error):
        write_bundle(replace(CASE, labels=labels), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_with_nothing_drawn_is_not_taken(tmp_path):
    nothing = np.zeros(SHAPE, np.uint8)
    path = bundle(tmp_path / "a.npz", mask_left=nothing, mask_top=nothing)
    with pytest.raises(NotEnoughCasesError, match="draw a label"):
        collect(find_bundle_studies([path]))
