"""What the viewer holds becomes the same case as a file would, and is not changed by what the viewer does next."""

import nibabel as nib
import numpy as np
import pytest
from oriented import AFFINE, ALL_ORIENTATIONS, SHAPE, image_array, label_array, oblique, turned, world_values

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.dafne.viewer import ViewerStudy
from dafne_dante.annotations.reading import Reading, read_case
from dafne_dante.annotations.study import Found, Study
from dafne_dante.errors import (
    AnnotationError,
    DanteError,
    GeometryMismatchError,
    NotEnoughCasesError,
    UnknownLabelError,
    UnreadableImageError,
)


def drawn(labels=None):
    labels = label_array() if labels is None else labels
    return {"left": labels == 1, "top": (labels == 2).astype(np.float64)}


def as_slices(mask, axis=2):
    return {index: plane for index, plane in enumerate(np.moveaxis(mask, axis, 0)) if plane.any()}


def test_it_is_a_study_without_files():
    study: Study = ViewerStudy("here", image_array(), AFFINE, drawn())
    assert (study.name, study.labels, study.files, study.empty_slices) == ("here", ("left", "top"), (), "unknown")
    case, notes = read_case(study)
    np.testing.assert_array_equal(case.image[0], image_array())
    np.testing.assert_array_equal(case.segmentation, label_array())
    np.testing.assert_array_equal(case.annotated, label_array().any(axis=(0, 1)))
    np.testing.assert_array_equal(case.affine, AFFINE)
    assert notes.remarks == ()


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_left_stays_left_in_every_order_and_the_slices_come_last(slice_axis):
    affine = oblique(AFFINE)
    expected_image, expected_labels = world_values(image_array(), affine), world_values(label_array(), affine)
    for orientation in ALL_ORIENTATIONS:
        image, stored = turned(image_array(), affine, orientation)
        labels, _ = turned(label_array(), affine, orientation)
        annotated = np.flatnonzero(np.moveaxis(labels, slice_axis, 0).any(axis=(1, 2)))
        masks = {name: as_slices(mask, slice_axis) for name, mask in drawn(labels).items()}
        study = ViewerStudy("a", image, stored, masks, annotated=annotated, slice_axis=slice_axis)
        case, _ = read_case(study)
        assert world_values(case.image[0], case.affine) == expected_image
        assert world_values(case.segmentation, case.affine) == expected_labels
        assert case.shape[2] == image.shape[slice_axis]
        np.testing.assert_array_equal(case.annotated, case.segmentation.any(axis=(0, 1)))
        assert case.annotated.sum() == len(annotated)


def test_the_viewer_may_go_on_editing():
    image, affine, masks = image_array(), AFFINE.copy(), {name: 1 * mask for name, mask in drawn().items()}
    slices, annotated = as_slices(masks["left"]), [0, 1, 2, 3, 9, 10]
    study = ViewerStudy("a", image, affine, {"left": slices, "top": masks["top"]}, annotated=annotated)
    before, _ = read_case(study)
    image[:] = 0
    affine[:] = 0
    for array in (*masks.values(), *slices.values()):
        array[:] = 1
    slices.clear()
    masks.clear()
    annotated.clear()
    after, _ = read_case(study)
    for name in ("image", "segmentation", "annotated", "affine"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    np.testing.assert_array_equal(after.segmentation, label_array())


def test_what_nobody_looked_at_is_left_out_and_told():
    """An automatic segmentation of all slices, of which somebody corrected two, and one has nothing on it."""
    study = ViewerStudy("a", image_array(), AFFINE, drawn(), annotated=[2, 3, 6])
    case, notes = read_case(study)
    assert np.flatnonzero(case.annotated).tolist() == [2, 3, 6]
    assert np.flatnonzero(case.segmentation.any(axis=(0, 1))).tolist() == [2, 3]
    np.testing.assert_array_equal(case.segmentation[..., 2:4], label_array()[..., 2:4])
    assert notes.remarks == ("left out what is drawn on 3 slices that nobody marked as labelled",)


def test_nothing_annotated_is_nothing_to_learn_from():
    with pytest.raises(NotEnoughCasesError):
        read_case(ViewerStudy("a", image_array(), AFFINE, drawn(), annotated=()))
    with pytest.raises(NotEnoughCasesError):
        read_case(ViewerStudy("a", image_array(), AFFINE, {"left": {}}))


def test_contrasts_become_channels():
    image = np.stack([image_array(), -image_array()])
    stored, affine = turned(image[0], AFFINE, ALL_ORIENTATIONS[5])
    labels, _ = turned(label_array(), AFFINE, ALL_ORIENTATIONS[5])
    case, _ = read_case(ViewerStudy("a", np.stack([stored, -stored]), affine, drawn(labels)))
    assert nib.aff2axcodes(case.affine)[2] == nib.aff2axcodes(affine)[2].translate(str.maketrans("LPI", "RAS"))
    np.testing.assert_array_equal(case.image[1], -case.image[0])
    assert world_values(case.image[0], case.affine) == world_values(image[0], AFFINE)


def test_where_labels_overlap_the_later_name_counts():
    masks = {"top": np.ones(SHAPE, bool), " left ": np.ones(SHAPE, bool), "middle": {3: np.ones(SHAPE[:2], "u1")}}
    case, _ = read_case(ViewerStudy("a", image_array(), AFFINE, masks))
    assert case.labels == ("left", "middle", "top")
    assert (case.segmentation == 3).all()
    case, _ = read_case(ViewerStudy("a", image_array(), AFFINE, masks), ("left", "middle"))
    assert np.unique(case.segmentation[..., 3]).tolist() == [2]
    assert np.unique(np.delete(case.segmentation, 3, axis=2)).tolist() == [1]


def test_it_can_be_collected_beside_others():
    studies = (
        ViewerStudy("a", image_array(), AFFINE, drawn()),
        ViewerStudy("b", np.full(SHAPE, 1e300), AFFINE, drawn()),
        ViewerStudy("c", image_array() + 1, AFFINE, {"liver": label_array() == 1}),
    )
    taken = collect(Found(studies), ("top", "left"), Reading(key=b"key"))
    assert [one.name for one in taken.taken] == ["a"]
    np.testing.assert_array_equal(taken.cases[0].segmentation, np.array([0, 2, 1])[label_array()])
    assert [left.name for left in taken.left] == ["b", "c"]


FLAT = np.ones(SHAPE[:2], bool)
BAD = {
    "image of text": ({"volume": np.full(SHAPE, "x")}, UnreadableImageError, "real number"),
    "complex image": ({"volume": image_array() * 1j}, UnreadableImageError, "real number"),
    "objects": ({"volume": np.full(SHAPE, None)}, UnreadableImageError, "real number"),
    "2D image": ({"volume": image_array()[0]}, UnreadableImageError, r"\(X, Y, Z\)"),
    "5D image": ({"volume": image_array()[None, None]}, UnreadableImageError, r"\(X, Y, Z\)"),
    "no voxel": ({"volume": image_array()[:0]}, UnreadableImageError, r"found \(0, 9, 11\)"),
    "17 contrasts": ({"volume": np.stack([image_array()] * 17)}, UnreadableImageError, "1 to 16 contrasts"),
    "nan": ({"volume": np.where(label_array() > 0, np.nan, 1)}, UnreadableImageError, "NaN or infinity"),
    "singular affine": ({"affine": np.diag([1, 1, 0, 1])}, UnreadableImageError, "expected voxels of"),
    "affine of nan": ({"affine": np.full((4, 4), np.nan)}, UnreadableImageError, "finite"),
    "affine of text": ({"affine": np.full((4, 4), "x")}, UnreadableImageError, "finite"),
    "huge affine": ({"affine": np.full((4, 4), 1e300)}, UnreadableImageError, "last row"),
    "no label": ({"masks": {}}, AnnotationError, "at least one label"),
    "nameless": ({"masks": {" ": FLAT}}, AnnotationError, "printable"),
    "two spellings": ({"masks": {"Left": {2: FLAT}, "left": {2: FLAT}}}, AnnotationError, "two alike"),
    "two blanks": ({"masks": {"left ": {2: FLAT}, "left": {2: FLAT}}}, AnnotationError, "two alike"),
    "mask of another shape": ({"masks": {"left": np.ones(SHAPE)[1:]}}, GeometryMismatchError, "left to have"),
    "mask of one slice": ({"masks": {"left": FLAT}}, GeometryMismatchError, "left to have"),
    "slice of another shape": ({"masks": {"left": {2: FLAT.T}}}, GeometryMismatchError, "left to have slices"),
    "slice that is not there": ({"masks": {"left": {11: FLAT}}}, AnnotationError, "slices 0 to 10, found 11"),
    "slice before the first": ({"masks": {"left": {-1: FLAT}}}, AnnotationError, "found -1"),
    "label map": ({"masks": {"left": label_array()}}, UnknownLabelError, "one value"),
    "two values in a slice": ({"masks": {"left": {2: FLAT + np.eye(*FLAT.shape)}}}, UnknownLabelError, "one value"),
    "nan in a mask": ({"masks": {"left": {2: np.where(FLAT, np.nan, 0)}}}, UnknownLabelError, "one value"),
    "negative mask": ({"masks": {"left": {2: -1.0 * FLAT}}}, UnknownLabelError, "one value"),
    "mask of objects": ({"masks": {"left": {2: FLAT.astype(object)}}}, UnreadableImageError, "mask of numbers"),
    "annotated elsewhere": ({"annotated": [3, 11]}, AnnotationError, "slices 0 to 10, found 11"),
    "annotated as bools": ({"annotated": np.ones(11, bool)}, AnnotationError, "found"),
    "annotated as floats": ({"annotated": [1.5]}, AnnotationError, "found 1.5"),
    "a fourth axis": ({"slice_axis": 3}, AnnotationError, "axis 0, 1 or 2"),
}


@pytest.mark.parametrize(("change", "error", "words"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_is_refused(change, error, words):
    given = {"volume": image_array(), "affine": AFFINE, "masks": drawn(), **change}
    with pytest.raises(error, match=words) as caught:
        read_case(ViewerStudy("a", **given))
    assert isinstance(caught.value, DanteError)
