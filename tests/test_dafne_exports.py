"""Dafne's NIfTI exports find their image by name and grid, keep the viewer's slices, and are refused when in doubt."""

import gzip
import re
from contextlib import suppress

import numpy as np
import pytest
from oriented import AFFINE, ALL_ORIENTATIONS, SHAPE, image_array, label_array, oblique, turned, world_values, write

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.dafne.exports import find_export_studies
from dafne_dante.annotations.reading import Reading, read_case
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.errors import DanteError

AXIAL = np.array([(1, -1), (0, -1), (2, 1)], dtype=float)  # rows to the back, columns to the left, slices upwards


def on_screen(array, affine=AFFINE, orientation=AXIAL):
    """Array and affine as the viewer has them."""
    return turned(array, affine, orientation)


def compact(folder, name="seg", labels=("left", "top"), values=None, affine=AFFINE, orientation=AXIAL):
    """What `save_single_nifti` of Dafne writes: label values as uint16 and two tables beside them."""
    values = label_array() if values is None else values
    path = write(folder / f"{name}.nii.gz", *on_screen(values.astype(np.uint16), affine, orientation))
    rows = [f"{number},{label}\n" for number, label in enumerate(labels, start=1)]
    (folder / f"{path.name}.csv").write_text("".join(["Value,Label\n", *rows]))
    (folder / f"{path.name}_itk-snap.txt").write_text("# ITK-SnAP Label Description File\n")
    return path


def masks(folder, suffix="", orientation=AXIAL, affine=AFFINE):
    """What `save_nifti_masks` writes."""
    for value, label in enumerate(("left", "top"), start=1):
        stored = (label_array() == value).astype(np.uint16)
        write(folder / f"{label}{suffix}.nii.gz", *on_screen(stored, affine, orientation))


def only(folder):
    found = find_export_studies(folder)
    assert not found.left, found.left
    (study,) = found.studies
    return study


def reasons(folder):
    return {left.name: left.reason for left in find_export_studies(folder).left}


@pytest.mark.parametrize("export", [compact, masks])
def test_an_export_is_read_with_the_image_beside_it(tmp_path, export):
    write(tmp_path / "anything.nii", image_array())
    export(tmp_path)
    study = only(tmp_path)
    assert study.labels == ("left", "top")
    assert study.files[0].name == "anything.nii"
    assert all(path.name.endswith(".nii.gz") for path in study.files[1:])
    case, _ = read_case(study)
    np.testing.assert_array_equal(case.image[0], image_array())
    np.testing.assert_array_equal(case.segmentation, label_array())
    np.testing.assert_array_equal(case.annotated, label_array().any(axis=(0, 1)))


@pytest.mark.parametrize("export", [compact, masks])
def test_left_stays_left_in_every_order_and_the_viewers_slices_come_last(tmp_path, export):
    """Image and export are stored in orders of their own; 11 and 48 have no common divisor, so all pairs differ."""
    affine = oblique(AFFINE, 33)  # float32 in a file: at this angle no place is rounded another way
    expected_image, expected_labels = world_values(image_array(), affine), world_values(label_array(), affine)
    for number, orientation in enumerate(ALL_ORIENTATIONS):
        folder = tmp_path / str(number)
        write(folder / "image.nii", *turned(image_array(), affine, ALL_ORIENTATIONS[(11 * number + 5) % 48]))
        export(folder, orientation=orientation, affine=affine)
        case, _ = read_case(only(folder))
        assert world_values(case.image[0], case.affine) == expected_image
        assert world_values(case.segmentation, case.affine) == expected_labels
        assert case.shape[2] == SHAPE[orientation[:, 0].tolist().index(2)], "the last axis of the export"


def test_exports_of_a_3d_model_have_a_number_and_the_axes_of_the_image(tmp_path):
    for number, flips in enumerate([(1, 1, 1), (-1, -1, 1)]):
        folder = tmp_path / str(number)
        order = np.array([(axis, flip) for axis, flip in enumerate(flips)], dtype=float)
        write(folder / "leg.nii.gz", *turned(image_array(), AFFINE, order))
        masks(folder, suffix=f"_{number}", orientation=order)
        case, notes = read_case(only(folder))
        assert case.labels == ("left", "top")
        np.testing.assert_array_equal(case.segmentation, label_array())
        assert "which way its slices ran" in notes.remarks[0]


@pytest.mark.parametrize("labels", [("disc_3",), ("disc_3", "rib_3"), ("disc_3", "disc_4"), ("disc_3", "rib")])
def test_numbers_of_labels_stay_with_them(tmp_path, labels):
    write(tmp_path / "leg.nii.gz", image_array())
    for label in labels:
        write(tmp_path / f"{label}.nii.gz", *on_screen((label_array() == 1).astype(np.uint16)))
    assert only(tmp_path).labels == labels


def test_a_compact_export_tells_what_it_cannot(tmp_path):
    shape = (9, 9, 4)
    write(tmp_path / "a.nii.gz", image_array(shape))
    compact(tmp_path, labels=("left", "top", "none"), values=label_array(shape))
    _, notes = read_case(only(tmp_path))
    assert "overlap" in notes.remarks[0]
    assert "3D model" in notes.remarks[1]


def test_overlaps_of_a_compact_export_are_refused_where_they_show(tmp_path):
    write(tmp_path / "a.nii.gz", image_array())
    compact(tmp_path, values=label_array() + (label_array() == 2))
    with pytest.raises(DanteError, match="found 3: labels overlap"):
        read_case(only(tmp_path))


def test_where_masks_overlap_the_later_name_counts(tmp_path):
    write(tmp_path / "a.nii", image_array())
    masks(tmp_path)
    write(tmp_path / "top.nii.gz", *on_screen(np.ones(SHAPE, np.uint16)))
    assert (read_case(only(tmp_path))[0].segmentation == 2).all()
    np.testing.assert_array_equal(read_case(only(tmp_path), ("left",))[0].segmentation, label_array() == 1)


def test_a_name_decides_between_images_that_fit(tmp_path):
    for number, name in enumerate(("leg", "leg_2", "other")):
        write(tmp_path / f"{name}.nii.gz", image_array() + number)
        compact(tmp_path, f"{name}_seg")
    found = find_export_studies(tmp_path)
    assert [study.files[0].name for study in found.studies] == ["leg_2.nii.gz", "leg.nii.gz", "other.nii.gz"]
    assert [study.name for study in found.studies] == ["leg_2_seg", "leg_seg", "other_seg"]
    assert not found.left


def test_the_grid_decides_between_images_without_a_name(tmp_path):
    write(tmp_path / "one.nii.gz", image_array())
    write(tmp_path / "two.nii.gz", image_array(), oblique(AFFINE))
    compact(tmp_path, affine=oblique(AFFINE))
    found = find_export_studies(tmp_path)
    assert found.studies[0].files[0].name == "two.nii.gz"
    assert [left.name for left in found.left] == ["one.nii.gz"]


def no_image(folder):
    compact(folder)


def image_elsewhere(folder):
    write(folder / "image.nii.gz", image_array(), oblique(AFFINE))
    compact(folder)


def named_image_elsewhere(folder):
    write(folder / "seg.nii", image_array()) and (folder / "seg.nii").rename(folder / "other.nii")
    write(folder / "leg.nii.gz", image_array(), oblique(AFFINE))
    compact(folder, "leg-seg")


def two_images(folder):
    write(folder / "a.nii.gz", image_array())
    write(folder / "b.nii.gz", image_array() + 1)
    compact(folder)


def two_exports(folder):
    write(folder / "a.nii.gz", image_array())
    compact(folder, "x")
    compact(folder, "y")


def with_legend(folder, text):
    write(folder / "a.nii.gz", image_array())
    path = compact(folder)
    path.with_name(path.name + ".csv").write_bytes(text)


def broken(folder, name):
    write(folder / "a.nii.gz", image_array())
    compact(folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:100])


def no_image_for_masks(folder):
    folder.mkdir(exist_ok=True)
    masks(folder)


def with_plain_masks(folder):
    write(folder / "image.nii.gz", image_array())
    write(folder / "mask_left.nii.gz", (label_array() == 1).astype(np.uint8))
    compact(folder)


def two_spellings(folder):
    write(folder / "a.nii", image_array())
    masks(folder)
    write(folder / "TOP.nii.gz", *on_screen((label_array() == 2).astype(np.uint16)))


LEFT = {
    "no image": (no_image, "seg", "same grid, found none"),
    "image on another grid": (image_elsewhere, "seg", "same grid, found none"),
    "its own image on another grid": (named_image_elsewhere, "leg-seg", "found leg on another grid"),
    "two images": (two_images, "seg", "found a, b"),
    "two exports": (two_exports, "y", "expected one export for a, found 2"),
    "other of two exports": (two_exports, "x", "expected one export for a, found 2"),
    "masks without image": (no_image_for_masks, "data", "same grid, found none"),
    "plain masks beside it": (with_plain_masks, "mask_left.nii.gz", "folder of its own"),
    "two spellings": (two_spellings, "data", "two alike"),
    "empty legend": (lambda f: with_legend(f, b""), "seg.nii.gz", "Value,Label"),
    "another table": (lambda f: with_legend(f, b"a,b\n1,2\n"), "seg.nii.gz", "Value,Label"),
    "a value twice": (lambda f: with_legend(f, b"Value,Label\n1,a\n1,b\n"), "seg.nii.gz", "once"),
    "a name twice": (lambda f: with_legend(f, b"Value,Label\n1,a\n2,a\n"), "seg.nii.gz", "once"),
    "two cases of a name": (lambda f: with_legend(f, b"Value,Label\n1,a\n2,A\n"), "seg.nii.gz", "two alike"),
    "value beyond a byte": (lambda f: with_legend(f, b"Value,Label\n256,a\n"), "seg.nii.gz", "at most 255"),
    "value 0": (lambda f: with_legend(f, b"Value,Label\n0,a\n"), "seg.nii.gz", "Value,Label"),
    "name of escapes": (lambda f: with_legend(f, b"Value,Label\n1,\x1b[2J\n"), "seg.nii.gz", "printable"),
    "huge legend": (lambda f: with_legend(f, b"Value,Label\n" * 200_000), "seg.nii.gz", "at most"),
    "cut image": (lambda f: broken(f, "a.nii.gz"), "a.nii.gz", "damaged|cut short"),
    "cut export": (lambda f: broken(f, "seg.nii.gz"), "seg.nii.gz", "damaged|cut short"),
}


@pytest.mark.parametrize(("spoil", "name", "words"), LEFT.values(), ids=LEFT.keys())
def test_what_is_in_doubt_is_left_with_the_reason(tmp_path, spoil, name, words):
    folder = tmp_path / "data"
    folder.mkdir()
    spoil(folder)
    reason = reasons(folder)[name]
    assert re.search(words, reason), reason
    assert str(tmp_path) not in reason
    assert "\n" not in reason
    assert "\x1b" not in reason


@pytest.mark.parametrize(
    "text", [b"Value,Label\r\n1,M\xfcller\r\n2,b, c\r\n", "Value,Label\n1,Müller\n2,b, c".encode()]
)
def test_legends_of_other_machines_are_read(tmp_path, text):
    with_legend(tmp_path, text)
    assert only(tmp_path).labels == ("Müller", "b, c")


def test_folders_without_an_export_are_not_touched(tmp_path):
    assert find_export_studies(tmp_path).left == ()
    write(tmp_path / "image.nii.gz", image_array())
    write(tmp_path / "mask_left.nii.gz", (label_array() == 1).astype(np.uint8))
    assert find_export_studies(tmp_path).studies == ()
    assert find_export_studies(tmp_path).left == ()


def test_exports_are_found_in_a_tree_beside_plain_folders(tmp_path):
    write(tmp_path / "one" / "image.nii.gz", image_array())
    compact(tmp_path / "one")
    write(tmp_path / "two" / "image.nii.gz", image_array() + 1)
    masks(tmp_path / "two")
    write(tmp_path / "three" / "image.nii.gz", image_array() + 2)
    for value, label in enumerate(("left", "top"), start=1):
        write(tmp_path / "three" / f"mask_{label}.nii.gz", (label_array() == value).astype(np.uint8))
    found = find_studies_in([tmp_path])
    assert found.left == ()
    taken = collect(found, ("top", "left"), Reading(key=b"key"))
    assert [one.name for one in taken.taken] == ["seg", "three", "two"]
    for case in taken.cases:
        np.testing.assert_array_equal(case.segmentation, np.array([0, 2, 1])[label_array()])
    assert [int(case.annotated.sum()) for case in taken.cases] == [5, 11, 5]


def test_mutated_exports_raise_nothing_else(tmp_path):
    """Headers, voxels and legends with bytes changed at random: a study, or a reason."""
    draw = np.random.default_rng(0)
    write(tmp_path / "a.nii", image_array())
    compact(tmp_path)
    write(tmp_path / "left_0.nii.gz", (label_array() == 1).astype(np.uint16))
    sound = {path: path.read_bytes() for path in tmp_path.iterdir()}
    unpacked = {path: gzip.decompress(content) for path, content in sound.items() if path.suffix == ".gz"}
    taken = left = 0
    for number in range(160):
        path = sorted(sound)[number % 5]
        content = bytearray(unpacked.get(path, sound[path]))
        for position in draw.integers(0, min(len(content), 400), draw.integers(1, 4)):
            content[position] = draw.integers(0, 256)
        path.write_bytes(gzip.compress(content, mtime=0) if path in unpacked and number % 2 else content)
        found = find_studies_in([tmp_path])
        left += len(found.left)
        for study in found.studies:
            with suppress(DanteError):
                taken += bool(read_case(study))
        path.write_bytes(sound[path])
    assert taken > 160
    assert left > 40
