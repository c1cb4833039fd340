"""Folders of studies: every layout and orientation gives the same Case; every fault is told in one line."""

import gzip
import json
import re

import nibabel as nib
import numpy as np
import pytest
from oriented import AFFINE, ALL_ORIENTATIONS, SHAPE, image_array, label_array, oblique, turned, world_values, write

from dafne_dante.annotations.folders import find_studies, read_cases
from dafne_dante.annotations.nifti.image import read_image
from dafne_dante.annotations.nifti.volume import read_volume, write_segmentation
from dafne_dante.annotations.reading import read_case
from dafne_dante.errors import (
    AnnotationError,
    DanteError,
    GeometryMismatchError,
    NotEnoughCasesError,
    TrustError,
    UnknownLabelError,
    UnreadableImageError,
)

KEY = b"a key of this test"
THICK_SAGITTAL = np.array([[0.0, 0, -5, 20], [1, 0, 0, -9], [0, -1, 0, 8], [0, 0, 0, 1]])


def describe(folder, **entries):
    folder.mkdir(parents=True, exist_ok=True)
    document = {"labels": {"background": 0, "left": 1, "top": 2}, **entries}
    (folder / "dataset.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


def nnunet(folder, names=("a", "b"), **entries):
    """A sound folder of two studies; b is brighter than a, so that they are not the same study."""
    describe(folder, **entries)
    for number, name in enumerate(names):
        write(folder / "imagesTr" / f"{name}_0000.nii.gz", image_array() + number)
        write(folder / "labelsTr" / f"{name}.nii.gz", label_array())
    return folder


def plain(folder, names=("a", "b")):
    for number, name in enumerate(names):
        write(folder / name / "image.nii.gz", image_array() + number)
        write(folder / name / "mask_left.nii.gz", (label_array() == 1).astype(np.uint8))
        write(folder / name / "mask_top.nii.gz", (label_array() == 2).astype(np.uint8) * 255)
    return folder


def flat(folder, names=("a", "b")):
    for number, name in enumerate(names):
        write(folder / f"{name}.nii.gz", image_array() + number)
        write(folder / f"{name}_mask_left.nii.gz", (label_array() == 1).astype(np.uint8))
        write(folder / f"{name}_mask_top.nii.gz", (label_array() == 2).astype(np.float32))
    return folder


def decathlon(folder, names=("a", "b")):
    nnunet(folder, names, labels={"0": "background", "1": "left", "2": "top"}, modality={"0": "MRI"})
    for name in names:
        (folder / "imagesTr" / f"{name}_0000.nii.gz").rename(folder / "imagesTr" / f"{name}.nii.gz")
        (folder / "imagesTr" / f"._{name}.nii.gz").write_bytes(b"what macOS leaves behind")
    return folder


@pytest.mark.parametrize("layout", [nnunet, decathlon, plain, flat])
def test_every_layout_gives_the_same_cases(tmp_path, layout):
    cases = read_cases(layout(tmp_path / "data"), key=KEY)
    assert [study.name for study in find_studies(tmp_path / "data")] == ["a", "b"]
    for number, case in enumerate(cases):
        assert case.labels == ("left", "top")
        np.testing.assert_array_equal(case.image, image_array()[None] + number)
        np.testing.assert_array_equal(case.segmentation, label_array())
        np.testing.assert_allclose(case.affine, AFFINE)
        assert case.annotated.all()
        assert case.image.flags.c_contiguous


def test_left_stays_left_under_all_48_orders_of_image_and_of_label(tmp_path):
    """Image and label are stored in orders of their own; 7 and 48 have no common divisor, so all pairs differ."""
    affine = oblique(AFFINE)
    expected_image, expected_labels = world_values(image_array(), affine), world_values(label_array(), affine)
    for number, orientation in enumerate(ALL_ORIENTATIONS):
        folder = tmp_path / str(number)
        describe(folder)
        write(folder / "imagesTr" / "a_0000.nii", *turned(image_array(), affine, orientation))
        other = ALL_ORIENTATIONS[(7 * number + 5) % 48]
        write(folder / "labelsTr" / "a.nii", *turned(label_array(), affine, other))
        (case,) = read_cases(folder)
        assert nib.aff2axcodes(case.affine) == ("R", "A", "S")
        assert world_values(case.image[0], affine) == expected_image
        assert world_values(case.segmentation, affine) == expected_labels
        np.testing.assert_allclose(case.affine, affine, atol=1e-4)
        lowest_right = np.argwhere(case.segmentation == 1).mean(axis=0)[0]
        assert lowest_right < (case.shape[0] - 1) / 2, "left is where the first axis starts"


def test_a_label_is_laid_onto_its_image_at_45_degrees_too(tmp_path):
    """There the nearest world axis is decided by rounding, so both must not be turned on their own."""
    turn = np.eye(4)
    turn[:2, :2] = np.sqrt(0.5) * np.array([[1, -1], [1, 1]])
    wobble = np.eye(4)
    wobble[:2, :2] = [[1, 1e-6], [-1e-6, 1]]
    describe(tmp_path)
    for number, label_turn in enumerate((turn @ wobble, turn @ wobble.T)):
        write(tmp_path / "imagesTr" / f"{number}.nii", image_array(), turn @ AFFINE)
        write(tmp_path / "labelsTr" / f"{number}.nii", label_array(), label_turn @ AFFINE)
    for case in read_cases(tmp_path):
        order = np.argsort(case.image[0].ravel())
        np.testing.assert_array_equal(case.segmentation.ravel()[order], label_array().ravel())


def test_thick_sagittal_slices_come_last_for_image_and_label(tmp_path):
    describe(tmp_path)
    write(tmp_path / "imagesTr" / "a.nii", image_array((8, 6, 4)), THICK_SAGITTAL)
    stored, affine = turned(label_array((8, 6, 4)), THICK_SAGITTAL, ALL_ORIENTATIONS[21])
    write(tmp_path / "labelsTr" / "a.nii", stored, affine)
    (case,) = read_cases(tmp_path)
    assert case.shape == (8, 6, 4)
    assert case.annotated.shape == (4,)
    np.testing.assert_allclose(case.spacing_mm, (1, 1, 5))
    np.testing.assert_array_equal(case.segmentation, label_array((8, 6, 4))[:, ::-1, ::-1])


@pytest.mark.parametrize("base", [oblique(AFFINE), THICK_SAGITTAL], ids=["oblique", "thick"])
def test_a_prediction_lies_on_the_voxels_of_its_image(tmp_path, base):
    """Whoever draws on the canonical grid has drawn in the file's own order, for every order."""
    for orientation in ALL_ORIENTATIONS:
        stored, affine = turned(image_array(), base, orientation)
        grid = read_image([write(tmp_path / "image.nii", stored, affine)])
        drawn = (grid.image[0] > 13_000).astype(np.uint8)
        write_segmentation(tmp_path / "out.nii", grid.to_original(drawn), grid.original_affine)
        volume, found = read_volume(tmp_path / "out.nii")
        assert volume.shape == grid.original_shape == stored.shape
        np.testing.assert_array_equal(volume, stored > 13_000)
        np.testing.assert_array_equal(found, nib.load(tmp_path / "image.nii").affine)
    np.testing.assert_allclose(grid.spacing_mm, np.linalg.norm(grid.affine[:3, :3], axis=0))
    with pytest.raises(GeometryMismatchError):
        grid.to_original(np.zeros((1, 2, 3), np.uint8))


def test_contrasts_become_channels_on_one_grid(tmp_path):
    nnunet(tmp_path, channel_names={"0": "T1", "1": "T2"})
    for name in "ab":
        write(tmp_path / "imagesTr" / f"{name}_0001.nii", *turned(-image_array(), AFFINE, ALL_ORIENTATIONS[17]))
    for number, case in enumerate(read_cases(tmp_path)):
        np.testing.assert_array_equal(case.image, np.stack([image_array() + number, -image_array()]))


def test_contrasts_of_a_plain_folder_are_numbered_from_two(tmp_path):
    plain(tmp_path, names=("a",))
    write(tmp_path / "a" / "image2.nii.gz", -image_array())
    np.testing.assert_array_equal(read_cases(tmp_path)[0].image, np.stack([image_array(), -image_array()]))


def test_values_follow_the_model_and_not_the_folder(tmp_path):
    for layout in (nnunet, decathlon, plain, flat):
        for case in read_cases(layout(tmp_path / layout.__name__), labels=("Top ", "LEFT")):
            assert case.labels == ("Top ", "LEFT")
            np.testing.assert_array_equal(case.segmentation, np.array([0, 2, 1], np.uint8)[label_array()])


def test_values_need_not_be_consecutive(tmp_path):
    nnunet(tmp_path, names=("a",), labels={"top": 200, "background": 0, "left": 7})
    write(tmp_path / "labelsTr" / "a.nii.gz", np.array([0, 7, 200], np.int16)[label_array()])
    (case,) = read_cases(tmp_path)
    assert case.labels == ("left", "top")
    np.testing.assert_array_equal(case.segmentation, label_array())


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u8", "f4", "f8"])
def test_label_values_are_whole_whatever_their_dtype(tmp_path, dtype):
    nnunet(tmp_path, names=("a",))
    image = nib.Nifti1Image(label_array().astype(dtype), AFFINE, dtype=dtype)
    nib.save(image, tmp_path / "labelsTr" / "a.nii.gz")
    np.testing.assert_array_equal(read_cases(tmp_path)[0].segmentation, label_array())


def test_where_masks_overlap_the_later_name_counts(tmp_path):
    plain(tmp_path, names=("a",))
    write(tmp_path / "a" / "mask_top.nii.gz", np.ones(SHAPE, np.uint8))
    assert (read_cases(tmp_path)[0].segmentation == 2).all()
    assert (read_cases(tmp_path, labels=("top", "left"))[0].segmentation == 1).all()


def test_an_empty_mask_says_that_a_structure_is_absent(tmp_path):
    plain(tmp_path)
    write(tmp_path / "b" / "mask_left.nii.gz", np.zeros(SHAPE, np.uint8))
    assert [int((case.segmentation == 1).sum()) for case in read_cases(tmp_path)] == [18, 0]


def test_ids_are_equal_for_equal_content_and_key_only(tmp_path):
    nnunet(tmp_path / "one", names=("a", "b"))
    nnunet(tmp_path / "two", names=("x",))
    one, two = tmp_path / "one" / "imagesTr", tmp_path / "two" / "imagesTr"
    (two / "x_0000.nii.gz").write_bytes((one / "a_0000.nii.gz").read_bytes())
    a, b = (case.case_id for case in read_cases(tmp_path / "one", key=KEY))
    (x,) = (case.case_id for case in read_cases(tmp_path / "two", key=KEY))
    assert a == x != b
    assert re.fullmatch("[0-9a-f]{16}", a)
    unkeyed = read_cases(tmp_path / "two")[0].case_id
    assert len({x, read_cases(tmp_path / "two", key=b"another key")[0].case_id, unkeyed}) == 3
    assert read_cases(tmp_path / "two")[0].case_id == unkeyed, "the same within a process"


def test_studies_are_found_before_anything_is_opened(tmp_path):
    nnunet(tmp_path)
    (tmp_path / "imagesTr" / "b_0000.nii.gz").write_bytes(b"")
    first, second = find_studies(tmp_path)
    assert read_case(first)[0].labels == ("left", "top")
    with pytest.raises(UnreadableImageError, match=r"b_0000\.nii\.gz"):
        read_case(second)


def label_file(folder, array, affine=AFFINE):
    write(nnunet(folder) / "labelsTr" / "b.nii.gz", array, affine)


def shifted(millimetres):
    affine = AFFINE.copy()
    affine[2, 3] += millimetres
    return affine


def put(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def second_contrast_elsewhere(folder):
    for name in "ab":
        write(nnunet(folder) / "imagesTr" / f"{name}_0001.nii.gz", image_array(), shifted(3))


def mask(folder, name, array):
    write(plain(folder) / "b" / name, array)


def halves():
    array = label_array().astype(np.float32)
    array[3, 3, 3] = 0.5
    return array


def truncated(folder, name):
    content = (nnunet(folder) / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


SHORT = label_array()[:-1]
LARGE = label_array() * np.int16(256)
MIRRORED = np.diag([1, -1, 1, 1]) @ AFFINE
LABELS = {"background": 0, "left": 1, "top": 2}
BAD_FOLDERS = {
    # the files do not fit each other
    "another shape": (lambda f: label_file(f, SHORT), GeometryMismatchError, r"b\.nii\.gz.*b_0000.*6 x 9 x 11 voxels"),
    "another spacing": (lambda f: label_file(f, label_array(), AFFINE * 1.5), GeometryMismatchError, r"b\.nii\.gz"),
    "shifted": (lambda f: label_file(f, label_array(), shifted(0.2)), GeometryMismatchError, r"b\.nii\.gz.*0.2 mm"),
    "rotated": (lambda f: label_file(f, label_array(), oblique(AFFINE, 3)), GeometryMismatchError, r"b\.nii\.gz"),
    "mirrored": (lambda f: label_file(f, label_array(), MIRRORED), GeometryMismatchError, r"b\.nii\.gz.*2 mm away"),
    "contrast elsewhere": (second_contrast_elsewhere, GeometryMismatchError, r"a_0001\.nii\.gz"),
    "mask of another shape": (lambda f: mask(f, "mask_top.nii.gz", SHORT), GeometryMismatchError, "mask_top"),
    # values
    "undeclared value": (lambda f: label_file(f, label_array() * 2), UnknownLabelError, "b.nii.gz.*0, 1, 2, found 4"),
    "negative value": (lambda f: label_file(f, -label_array().astype("i2")), UnknownLabelError, r"b\.nii\.gz.*found -"),
    "value beyond a byte": (lambda f: label_file(f, LARGE), UnknownLabelError, r"b\.nii\.gz.*found (256|512)"),
    "half a label": (lambda f: label_file(f, halves()), UnknownLabelError, r"b\.nii\.gz.*found 0.5"),
    "half a mask": (lambda f: mask(f, "mask_left.nii.gz", halves()), UnknownLabelError, r"mask_left\.nii\.gz.*0.5"),
    "label map as a mask": (lambda f: mask(f, "mask_left.nii.gz", label_array()), UnknownLabelError, "beside 0"),
    # files
    "cut image": (lambda f: truncated(f, "imagesTr/b_0000.nii.gz"), UnreadableImageError, r"b_0000\.nii\.gz"),
    "cut label": (lambda f: truncated(f, "labelsTr/b.nii.gz"), UnreadableImageError, r"b\.nii\.gz"),
    "empty image": (lambda f: put(nnunet(f), "imagesTr/b_0000.nii.gz", b""), UnreadableImageError, "b_0000.*empty"),
    "4D image": (
        lambda f: write(nnunet(f) / "imagesTr" / "b_0000.nii.gz", np.zeros((*SHAPE, 2), "u1")),
        UnreadableImageError,
        "expected one volume, found 4D with 2",
    ),
    "beyond float32": (
        lambda f: write(nnunet(f) / "imagesTr" / "b_0000.nii.gz", np.full(SHAPE, 1e200)),
        UnreadableImageError,
        "b_0000.*3e38",
    ),
    # folders
    "no such folder": (lambda f: None, NotEnoughCasesError, "found none called 'data'"),
    "empty folder": (lambda f: f.mkdir(), NotEnoughCasesError, r"dataset\.json.*mask_<label>"),
    "a file": (lambda f: f.write_bytes(b""), NotEnoughCasesError, "expected a folder"),
    "other files only": (lambda f: put(f, "a/notes.txt", b"hello"), NotEnoughCasesError, r"dataset\.json"),
    "no dataset.json": (lambda f: (nnunet(f) / "dataset.json").unlink(), AnnotationError, r"expected dataset\.json"),
    "no imagesTr": (lambda f: (nnunet(f) / "imagesTr").rename(f / "images"), NotEnoughCasesError, "folder imagesTr"),
    "no labelsTr": (lambda f: (nnunet(f) / "labelsTr").rename(f / "labels"), NotEnoughCasesError, "folder labelsTr"),
    "no labels": (lambda f: nnunet(f, names=()) / "" and [(f / n).mkdir() for n in ("imagesTr", "labelsTr")],
                  NotEnoughCasesError, "label files"),
    "image without label": (
        lambda f: (nnunet(f) / "labelsTr" / "b.nii.gz").unlink(), AnnotationError, r"none for b_0000\.nii\.gz",
    ),
    "label without image": (
        lambda f: (nnunet(f) / "imagesTr" / "b_0000.nii.gz").unlink(), AnnotationError, r"b_0000\.nii\.gz.*found 0",
    ),
    "a gap in the contrasts": (
        lambda f: write(nnunet(f) / "imagesTr" / "b_0002.nii.gz", image_array()), AnnotationError, "none for b_0002",
    ),
    "one contrast more": (
        lambda f: write(nnunet(f) / "imagesTr" / "b_0001.nii.gz", image_array()), AnnotationError, "contrasts.*'b'",
    ),
    "one contrast less": (lambda f: nnunet(f, channel_names={"0": "T1", "1": "T2"}), AnnotationError, "expected 2"),
    "twice the same": (
        lambda f: write(nnunet(f) / "labelsTr" / "b.nii", label_array()), AnnotationError, r"b\.nii and b\.nii\.gz",
    ),
    # dataset.json
    "not JSON": (lambda f: put(nnunet(f), "dataset.json", b"{labels"), AnnotationError, "dataset.json: expected JSON"),
    "not UTF-8": (lambda f: put(nnunet(f), "dataset.json", b"\xff\xfe\xfa"), AnnotationError, "expected JSON"),
    "deep JSON": (lambda f: put(nnunet(f), "dataset.json", b"[" * 100_000), AnnotationError, "expected JSON"),
    "huge JSON": (lambda f: put(nnunet(f), "dataset.json", b" " * (5 << 20)), DanteError, r"dataset\.json.*at most"),
    "a list": (lambda f: put(nnunet(f), "dataset.json", b"[1]"), AnnotationError, "expected an object"),
    "a label twice": (
        lambda f: put(nnunet(f), "dataset.json", b'{"labels": {"left": 1, "left": 2}}'), AnnotationError, "once",
    ),
    "labels missing": (lambda f: nnunet(f, labels=None), AnnotationError, 'expected "labels"'),
    "labels a list": (lambda f: nnunet(f, labels=["left", "top"]), AnnotationError, 'expected "labels"'),
    "background only": (lambda f: nnunet(f, labels={"background": 0}), AnnotationError, "at least one label"),
    "regions": (lambda f: nnunet(f, labels={"background": 0, "whole": [1, 2]}), AnnotationError, "regions"),
    "ignore": (lambda f: nnunet(f, labels={**LABELS, "ignore": 3}), AnnotationError, "not supported"),
    "one value for two": (lambda f: nnunet(f, labels={"left": 1, "top": 1}), AnnotationError, "one value twice"),
    "two spellings": (lambda f: nnunet(f, labels={"left": 1, "Left": 2}), AnnotationError, "its own name"),
    "two values for one": (lambda f: nnunet(f, labels={"1": "left", "2": "left"}), AnnotationError, "its own name"),
    "value true": (lambda f: nnunet(f, labels={"left": True}), AnnotationError, "whole numbers"),
    "value 256": (lambda f: nnunet(f, labels={"left": 256}), AnnotationError, "whole numbers"),
    "value -1": (lambda f: nnunet(f, labels={"left": -1}), AnnotationError, "whole numbers"),
    "value 1.5": (lambda f: nnunet(f, labels={"left": 1.5}), AnnotationError, "whole numbers"),
    "version 1 value 1001": (lambda f: nnunet(f, labels={"1001": "left"}), AnnotationError, "whole numbers"),
    "nameless": (lambda f: nnunet(f, labels={" ": 1}), AnnotationError, "printable"),
    "unprintable": (lambda f: nnunet(f, labels={"\x1b[2J": 1}), AnnotationError, "printable"),
    "endless name": (lambda f: nnunet(f, labels={"x" * 101: 1}), AnnotationError, "printable"),
    "other files": (lambda f: nnunet(f, file_ending=".nrrd"), AnnotationError, "file_ending"),
    "odd channels": (lambda f: nnunet(f, channel_names=["T1"]), AnnotationError, "channel_names"),
    # plain folders
    "mask missing": (
        lambda f: (plain(f) / "b" / "mask_left.nii.gz").unlink(), AnnotationError, "case 'b' has no mask for 'left'",
    ),
    "flat mask missing": (
        lambda f: (flat(f) / "b_mask_left.nii.gz").unlink(), AnnotationError, "case 'b' has no mask for 'left'",
    ),
    "no mask at all": (lambda f: write(f / "a.nii.gz", image_array()), AnnotationError, "case 'a' has no mask"),
    "image missing": (
        lambda f: (plain(f) / "b" / "image.nii.gz").unlink(), AnnotationError, r"case 'b': expected image\.nii\.gz",
    ),
    "flat image missing": (
        lambda f: (flat(f) / "b.nii.gz").unlink(), AnnotationError, r"image b\.nii\.gz beside its mask b_mask_left",
    ),
    "unknown file": (lambda f: mask(f, "liver.nii.gz", label_array()), AnnotationError, r"found liver\.nii\.gz"),
    "both forms": (lambda f: flat(plain(f)), AnnotationError, "both forms"),
    "mask without a name": (lambda f: mask(f, "mask_.nii.gz", label_array()), AnnotationError, "printable"),
    "mask twice": (lambda f: mask(f, "mask_LEFT.nii.gz", label_array()), AnnotationError, "mask_LEFT.*mask_left"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "error", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS.keys())
def test_bad_folders_are_refused_in_one_line_without_their_place(tmp_path, spoil, error, words):
    spoil(tmp_path / "data")
    with pytest.raises(error, match=words) as caught:
        read_cases(tmp_path / "data")
    message = str(caught.value)
    assert str(tmp_path) not in message
    assert str(tmp_path.parent) not in message
    assert "\n" not in message
    assert "\x1b" not in message


@pytest.mark.parametrize(
    "labels", [("left",), ("left", "top", "liver"), ("left", "liver"), ("left", "Left", "top")], ids=",".join
)
@pytest.mark.parametrize("layout", [nnunet, plain])
def test_folder_and_model_must_know_the_same_labels(tmp_path, layout, labels):
    with pytest.raises(UnknownLabelError, match=f"labels {', '.join(labels)}, found left, top"):
        read_cases(layout(tmp_path), labels=labels)


def test_an_empty_key_would_be_no_secret(tmp_path):
    with pytest.raises(TrustError, match="empty"):
        read_cases(nnunet(tmp_path), key=b"")


@pytest.mark.parametrize("count", [0, 17])
def test_an_image_has_one_to_sixteen_contrasts(tmp_path, count):
    path = write(tmp_path / "a.nii", image_array())
    with pytest.raises(UnreadableImageError, match=f"found {count}"):
        read_image([path] * count)


def test_no_path_in_dataset_json_is_followed(tmp_path):
    """Version 2 may list files by path; only what lies in the two folders is read."""
    outside = write(tmp_path / "secret.nii.gz", image_array())
    folder = nnunet(tmp_path / "data", dataset={"a": {"images": [str(outside)], "label": "../secret.nii.gz"}})
    outside.write_bytes(gzip.compress(b"never read"))
    assert [len(study.images) for study in find_studies(folder)] == [1, 1]
    assert len(read_cases(folder)) == 2
