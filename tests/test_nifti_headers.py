"""What hospitals' NIfTI headers say twice, in fractions or for several volumes; and the files that nibabel ships."""

import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from oriented import AFFINE, SHAPE, image_array, label_array, oblique, write
from test_folders import decathlon, describe, nnunet, plain

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.nifti.volume import read_volume, read_volumes
from dafne_dante.annotations.reading import read_case
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.errors import AnnotationError, GeometryMismatchError, UnknownLabelError, UnreadableImageError

PACKAGED = sorted((Path(nib.__file__).parent / "tests" / "data").iterdir())
MIRRORED = AFFINE @ np.array([[-1.0, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""The same box with the first axis the other way round."""


def two_forms(path, sform, qform, array=None):
    image = nib.Nifti1Image(image_array() if array is None else array, sform)
    image.set_sform(sform, code="aligned")
    image.set_qform(qform, code="scanner")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def shifted(millimetres):
    affine = AFFINE.copy()
    affine[2, 3] += millimetres
    return affine


@pytest.mark.parametrize("affine", [AFFINE, oblique(AFFINE), MIRRORED])
def test_two_forms_that_agree_need_no_word(tmp_path, affine):
    found = read_volumes(two_forms(tmp_path / "a.nii", affine, affine))
    assert found.notes == ()
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)


def test_where_the_forms_are_apart_the_sform_counts_and_that_is_told(tmp_path):
    found = read_volumes(two_forms(tmp_path / "a.nii", AFFINE, shifted(4.0)))
    assert found.notes == ("its sform and its qform are up to 4.0 mm apart; the sform counts",)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-6)
    assert read_volumes(two_forms(tmp_path / "b.nii", AFFINE, shifted(0.5))).notes == ()


def test_a_file_that_is_in_doubt_about_left_and_right_is_refused(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"^a\.nii: expected sform and qform to agree on what is left"):
        read_volume(two_forms(tmp_path / "a.nii", AFFINE, MIRRORED))


def test_the_note_reaches_the_person(tmp_path):
    folder = nnunet(tmp_path / "site")
    two_forms(folder / "imagesTr" / "a_0000.nii.gz", AFFINE, shifted(4.0))
    taken = {one.name: one.notes.remarks for one in collect(find_studies_in([folder])).taken}
    assert taken["a"] == ("a_0000.nii.gz: its sform and its qform are up to 4.0 mm apart; the sform counts",)
    assert taken["b"] == ()


@pytest.mark.parametrize("name", ["mask_left.nii.gz", "mask_top.nii.gz"])
def test_what_a_mask_says_twice_is_told_too_and_once(tmp_path, name):
    folder = plain(tmp_path / "site", ("a",))
    number = ("mask_left.nii.gz", "mask_top.nii.gz").index(name) + 1
    two_forms(folder / "a" / name, AFFINE, shifted(4.0), (label_array() == number).astype(np.uint8))
    (taken,) = collect(find_studies_in([folder])).taken
    said = "its sform and its qform are up to 4.0 mm apart; the sform counts"
    assert taken.notes.remarks == (f"{name}: {said}",)
    two_forms(folder / "a" / "image.nii.gz", AFFINE, shifted(4.0))
    (taken,) = collect(find_studies_in([folder])).taken
    assert taken.notes.remarks == (f"image.nii.gz: {said}",), "it was copied from there to all masks"


def test_what_a_label_map_says_twice_is_told_too(tmp_path):
    folder = nnunet(tmp_path / "site", ("a",))
    two_forms(folder / "labelsTr" / "a.nii.gz", AFFINE, shifted(4.0), label_array())
    (taken,) = collect(find_studies_in([folder])).taken
    assert taken.notes.remarks == ("a.nii.gz: its sform and its qform are up to 4.0 mm apart; the sform counts",)


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_a_mask_agrees_with_its_image_by_the_form_that_counts(tmp_path, form):
    """The image's sform counts; a mask that knows nothing but its qform lies elsewhere."""
    folder = plain(tmp_path / "site", ("a",))
    two_forms(folder / "a" / "image.nii.gz", AFFINE, shifted(4.0))
    write(folder / "a" / "mask_left.nii.gz", (label_array() == 1) * 1.0, AFFINE if form == "sform" else shifted(4.0))
    found = find_studies_in([folder])
    if form == "sform":
        np.testing.assert_array_equal(collect(found).cases[0].segmentation, label_array())
    else:
        with pytest.raises(GeometryMismatchError, match=r"mask_left.*a box that lies 4 mm away"):
            read_case(found.studies[0])


def test_a_quaternion_that_is_none_leaves_the_sform(tmp_path):
    path = two_forms(tmp_path / "a.nii", AFFINE, AFFINE)
    content = bytearray(path.read_bytes())
    struct.pack_into("<fff", content, 256, 2.0, 2.0, 2.0)  # quatern_b, _c, _d: no more than 1 together
    path.write_bytes(content)
    found = read_volumes(path)
    assert found.notes == ("its qform is of no use; its sform counts",)
    np.testing.assert_allclose(found.affine, nib.load(path).affine)
    struct.pack_into("<h", content, 254, 0)  # sform_code
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"^a\.nii: expected a sound NIfTI header"):
        read_volumes(path)


def test_a_header_and_image_pair_is_refused_for_what_it_is(tmp_path):
    nib.save(nib.Nifti1Pair(image_array(), AFFINE), tmp_path / "a.img")
    found = find_studies_in([tmp_path])
    assert found.studies == ()
    assert {one.name: one.reason for one in found.left} == dict.fromkeys(
        ("a.hdr", "a.img"), "expected a single .nii file, found an .hdr and .img pair; convert it"
    )


def test_more_labels_than_a_segmentation_has_values_are_refused(tmp_path):
    folder = plain(tmp_path / "site", ("a",))
    content = (folder / "a" / "mask_left.nii.gz").read_bytes()
    for number in range(254):
        (folder / "a" / f"mask_m{number}.nii.gz").write_bytes(content)
    (study,) = find_studies_in([folder]).studies
    with pytest.raises(UnknownLabelError, match="at most 255 labels, found 256"):
        read_case(study)


def test_fractions_of_a_mask_count_from_one_half_and_that_is_told(tmp_path):
    folder = plain(tmp_path / "site", ("a",))
    mask = (label_array() == 1).astype(np.float32)
    mask[label_array() == 1] = 0.5
    mask[0, 0, 0] = 0.49
    write(folder / "a" / "mask_left.nii.gz", mask)
    (case,), (taken,) = (lambda found: (found.cases, found.taken))(collect(find_studies_in([folder])))
    assert np.array_equal(case.segmentation == 1, label_array() == 1)
    assert taken.notes.remarks == ("mask_left.nii.gz: fractions count from one half",)


@pytest.mark.parametrize("values", [(0.5, 2.0), (-0.5, 1.0), (0.5, 255.0)])
def test_what_is_neither_a_mask_nor_fractions_is_refused(tmp_path, values):
    folder = plain(tmp_path / "site", ("a",))
    mask = label_array().astype(np.float32)
    mask[label_array() == 1], mask[label_array() == 2] = values
    write(folder / "a" / "mask_left.nii.gz", mask)
    found = find_studies_in([folder])
    with pytest.raises(UnknownLabelError, match=r"^mask_left\.nii\.gz"):
        read_case(found.studies[0])


def several(folder, contrasts=2):
    """The Decathlon's layout with all contrasts in one file."""
    decathlon(folder)
    describe(
        folder, labels={"0": "background", "1": "left", "2": "top"},
        modality={str(number): "MRI" for number in range(contrasts)},
    )  # fmt: skip
    for number, name in enumerate("ab"):
        stacked = np.stack([image_array() + number, 2 * image_array() + number], axis=-1)
        write(folder / "imagesTr" / f"{name}.nii.gz", stacked)
    return folder


def test_contrasts_along_the_fourth_axis_become_channels(tmp_path):
    for case, number in zip(collect(find_studies_in([several(tmp_path / "site")])).cases, (0, 1), strict=True):
        np.testing.assert_array_equal(case.image[0], image_array() + number)
        np.testing.assert_array_equal(case.image[1], 2 * image_array() + number)
        np.testing.assert_array_equal(case.segmentation, label_array())


def test_a_series_in_time_is_never_taken_for_contrasts(tmp_path):
    folder = several(tmp_path / "site", contrasts=3)
    with pytest.raises(AnnotationError, match="expected 3 volumes, found 4D with 2"):
        collect(find_studies_in([folder]))
    plain(tmp_path / "plain", ("a",))
    write(tmp_path / "plain" / "a" / "image.nii.gz", np.stack([image_array()] * 2, axis=-1))
    with pytest.raises(AnnotationError, match="expected one volume, found 4D with 2"):
        collect(find_studies_in([tmp_path / "plain"]))


def test_files_that_nibabel_ships_are_read_as_nibabel_reads_them_or_refused():
    read, refused = [], []
    for path in PACKAGED:
        if not path.is_file():
            continue
        try:
            volume, affine = read_volume(path)
        except UnreadableImageError as error:
            assert path.name in str(error)
            refused.append(path.name)
            continue
        image = nib.load(path)
        np.testing.assert_array_equal(volume, np.asarray(image.dataobj).reshape(volume.shape))
        np.testing.assert_allclose(affine, image.affine)
        read.append(path.name)
    assert {"anatomical.nii", "reoriented_anat_moved.nii", "standard.nii.gz"} <= set(read)
    assert {"functional.nii", "example4d.nii.gz", "nifti1.hdr", "analyze.hdr", "small.mnc"} <= set(refused)
