"""What is exported is read by any NIfTI program, and again by us, as the same case."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from stored_cases import stored_case

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.nifti.annotated import SIDECAR
from dafne_dante.annotations.nifti.plain import find_plain_studies
from dafne_dante.annotations.reading import read_case
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.annotations.store.export import mask_names, write_nifti
from dafne_dante.errors import NotEnoughCasesError, StorageError


def test_every_voxel_and_its_place_come_back(tmp_path):
    case = stored_case(channels=2, scale=0.3)
    files = write_nifti(case, tmp_path / "case")
    assert [path.name for path in files] == [
        "image.nii.gz", "image2.nii.gz", "mask_fat.nii.gz", "mask_bone.nii.gz", SIDECAR
    ]  # fmt: skip
    for channel, name in enumerate(("image.nii.gz", "image2.nii.gz")):
        image = nibabel.load(tmp_path / "case" / name)
        assert image.get_data_dtype() == np.float32
        np.testing.assert_array_equal(np.asarray(image.dataobj), case.image[channel])
        for affine in (image.get_sform(), image.get_qform()):
            np.testing.assert_allclose(affine, case.affine, atol=1e-4)
        assert image.header.get_xyzt_units()[0] == "mm"
    bone = nibabel.load(tmp_path / "case" / "mask_bone.nii.gz")
    np.testing.assert_array_equal(np.asarray(bone.dataobj), case.segmentation == 2)
    facts = json.loads((tmp_path / "case" / SIDECAR).read_text())
    assert facts["annotated"] == np.flatnonzero(case.annotated).tolist()
    assert facts["slices"] == 8
    (study,) = find_plain_studies(tmp_path)
    again = read_case(study, ("fat", "bone"))[0]
    np.testing.assert_array_equal(again.segmentation, case.segmentation)
    np.testing.assert_array_equal(again.image, case.image)


def test_the_same_case_gives_the_same_bytes_and_no_date(tmp_path):
    for name in ("a", "b"):
        write_nifti(stored_case(), tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("labels", [
    ("fat", "Fußknöchel links"), ("../../etc/passwd", "a\\b:c"), ("T1-2", "..."), ("Fat", "fat", "fat?"),
    ("a/", "a?", "a"),
])  # fmt: skip
def test_files_are_named_after_their_labels_and_stay_in_their_folder(tmp_path, labels):
    found = mask_names(labels)
    assert len({name.casefold() for name in found.values()}) == len(labels)
    assert all("/" not in name and "\\" not in name and ".." not in name[:7] for name in found.values())
    folder = tmp_path / "in" / "case"
    files = write_nifti(stored_case(labels=labels), folder)
    assert {path.parent for path in files} == {folder}
    assert len(list(tmp_path.rglob("mask_*"))) == len(labels)
    facts = json.loads((folder / SIDECAR).read_text())
    assert facts["masks"] == {name: label for label, name in found.items()}


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        write_nifti(stored_case(), tmp_path / "file" / "case")


@pytest.mark.parametrize("turn", [(0, 1, 2), (1, 2, 0)])
def test_slices_that_nobody_labelled_stay_unknown(tmp_path, turn):
    """Also where the slices are not what the voxel sizes say, and where another program has turned the files."""
    case = stored_case()
    assert 0 < case.annotated.sum() < len(case.annotated)
    affine = case.affine @ np.diag([1, 3, 1, 1]) if turn == (0, 1, 2) else case.affine[:, [*turn, 3]]
    case = replace(case, affine=affine)
    write_nifti(case, tmp_path / "site" / "case")
    for path in (tmp_path / "site" / "case").glob("*.nii.gz") if turn == (0, 1, 2) else ():
        turned = nibabel.load(path).slicer[::-1, :, ::-1]
        nibabel.save(nibabel.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    sidecar = tmp_path / "site" / "case" / SIDECAR
    if turn == (0, 1, 2):
        facts = json.loads(sidecar.read_text())
        facts["annotated"] = [facts["slices"] - 1 - number for number in facts["annotated"]]
        sidecar.write_text(json.dumps(facts))
    found = find_studies_in([tmp_path / "site"])
    assert found.left == ()
    again = read_case(found.studies[0], case.labels)[0]
    np.testing.assert_array_equal(again.annotated, case.annotated)
    np.testing.assert_array_equal(again.segmentation, case.segmentation)
    assert sidecar in found.studies[0].files


def test_labels_that_no_file_can_be_called_keep_their_names(tmp_path):
    write_nifti(stored_case(labels=("a/b", "a?b")), tmp_path / "site" / "case")
    assert find_studies_in([tmp_path / "site"]).studies[0].labels == ("a/b", "a?b")


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"{}", b'{"format": "dafne-dante-annotated", "version": 2}', b"[" * 100_000,
    *(json.dumps({"format": "dafne-dante-annotated", "version": 1, "slices": 8, "annotated": [1], "masks": {}} | odd
        ).encode() for odd in ({"slices": 9}, {"slices": -1}, {"slices": True}, {"annotated": [8]},
                               {"annotated": [-1]}, {"annotated": [0.5]}, {"annotated": "1"}, {"annotated": [1] * 9},
                               {"masks": []}, {"masks": {"mask_fat.nii.gz": 1}},
                               {"masks": {"mask_fat.nii.gz": "\x00"}}, {"masks": {"mask_fat.nii.gz": "bone"}})),
])  # fmt: skip
def test_a_sidecar_in_doubt_leaves_the_case(tmp_path, content):
    write_nifti(stored_case(), tmp_path / "site" / "case")
    (tmp_path / "site" / "case" / SIDECAR).write_bytes(content)
    with pytest.raises(NotEnoughCasesError, match=r"left (case|annotated)"):
        collect(find_studies_in([tmp_path / "site"]))
