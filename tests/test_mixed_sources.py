"""`--data` takes everything that a site has, mixed, from one folder or several, and accounts for every file of it."""

import json

import numpy as np
import pytest
from dicom_sites import write_segmentation, write_series, write_structure_set
from phantoms import make_case
from sites import NEW_SCANNER, snapshot, write_cases
from sources import write_bids, write_bundle_file, write_plain

KINDS = ("nnunet", "plain", "segmentation", "structures", "bundle", "bids")


def masks_of(case):
    return {label: case.segmentation == value for value, label in enumerate(case.labels, start=1)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """One study of each kind, two of which are wrong, an image without labels, and what else lies about."""
    folder = tmp_path_factory.mktemp("site")
    seeds = dict(zip(KINDS, range(80, 86), strict=True))
    cases = {kind: make_case(seed, **NEW_SCANNER) for kind, seed in seeds.items()}
    whole = {kind: np.rint(case.image[0]) for kind, case in cases.items()}
    write_cases(folder / "nnunet", (seeds["nnunet"],), **NEW_SCANNER)
    (folder / "flat").mkdir()
    write_plain(folder / "flat", whole["plain"], masks_of(cases["plain"]), cases["plain"].affine, "plain")
    # An archive: images here, what was drawn on them there.
    for kind, write in (("segmentation", write_segmentation), ("structures", write_structure_set)):
        slices = write_series(folder / "archive" / f"images-{kind}", cases[kind])
        write(folder / "archive" / f"{kind}.dcm", slices, cases[kind])
    write_series(folder / "archive" / "nobody-labelled", make_case(86))
    write_bundle_file(folder, whole["bundle"], masks_of(cases["bundle"]), cases["bundle"].affine)
    write_bids(folder / "bids", whole["bids"], masks_of(cases["bids"]), cases["bids"].affine)
    (folder / "README.txt").write_text("what the archivist wrote")
    (folder / "flat" / "broken.nii").write_bytes(b"no image")
    (folder / "flat" / "broken_mask_ball.nii").write_bytes(b"no mask")
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    return folder, cases


def test_every_kind_is_taken_and_all_else_accounted_for(command, site, trained):
    folder, cases = site
    before = snapshot(folder)
    code, out, err = command("evaluate", "--model", trained / "base.model", "--data", folder, "--skip-faulty", "--json")
    assert code == 0, err
    answer = json.loads(out)
    taken = {one["name"]: one for one in answer["taken"]}
    assert taken.keys() == {"c80", "plain", "images-segmentation", "images-structures", "bundle", "sub-1_dseg"}
    assert all(one["unknown_labels"] == one["absent_labels"] == [] for one in taken.values())
    drawn = masks_of(cases["bundle"])
    assert taken["bundle"]["annotated_slices"] == (drawn["ball"] | drawn["box"]).any(axis=(0, 1)).sum()
    left = {one["name"]: one["reason"] for one in answer["left"]}
    assert left.keys() == {"README.txt", "broken", "damaged.npz", "nobody-labelled"}
    assert "an image without labels" in left["nobody-labelled"]
    assert "expected the model's labels ball, box, found ball" in left["broken"]
    assert f"took 6 cases, left {len(left)}" in err
    assert all(str(folder) not in text for text in (out, err))
    assert snapshot(folder) == before


def test_the_kinds_give_one_and_the_same_measure(command, site, trained, tmp_path):
    """Six forms of six studies, and the same six as NIfTI; contours alone cost a little."""
    folder, cases = site
    plain, configuration = tmp_path / "plain", tmp_path / "configuration"
    plain.mkdir()
    configuration.mkdir(exist_ok=True)
    (configuration / "settings.toml").write_text('[annotations]\nempty_slices = "background"\n')
    for kind, case in cases.items():
        write_plain(plain, np.rint(case.image[0]), masks_of(case), case.affine, kind)
    found = {}
    for data in (folder, plain):
        options = ("--data", data, "--skip-faulty", "--json")
        code, out, err = command("evaluate", "--model", trained / "base.model", *options)
        assert code == 0, err
        found[data] = json.loads(out)["dice"]
    assert found[folder] == pytest.approx(found[plain], abs=0.002)


def test_several_folders_and_single_files_are_named_one_by_one(command, site, trained, tmp_path):
    folder, _ = site
    base, out_folder = trained / "base.model", tmp_path / "out"
    code, out, err = command(
        "improve", "--base", base, "--out", out_folder, "--epochs", 1, "--json",
        "--data", folder / "nnunet", "--data", folder / "bundle.npz", "--data", folder / "bids",
    )  # fmt: skip
    assert code == 0, err
    answer = json.loads(out)
    assert [one["name"] for one in answer["taken"]] == ["c80", "bundle", "sub-1_dseg"]
    assert answer["left"] == []
