"""What is exported is read by any NIfTI program, and again by us, as the same case."""

import json

import nibabel
import numpy as np
import pytest
from stored_cases import stored_case

from dafne_dante.annotations.nifti.plain import find_plain_studies
from dafne_dante.annotations.reading import read_case
from dafne_dante.annotations.store.export import SIDECAR, mask_names, write_nifti
from dafne_dante.errors import StorageError


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
