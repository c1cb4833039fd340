"""The nightly way: watch folders fill the case store, and improve, train and evaluate learn from what is kept."""

import json
import time

import nibabel
import numpy as np
import pytest
from sites import NEW_SCANNER, snapshot, without_voxels, write_cases

from dafne_dante.config import load_settings
from dafne_dante.plugin.collecting import CaseRequest, collect_cases


@pytest.fixture
def watched(tmp_path):
    """A watch folder of four studies, named in the settings."""
    folder = write_cases(tmp_path / "watched", (71, 72, 73, 74), **NEW_SCANNER)
    settings = tmp_path / "configuration"
    settings.mkdir(exist_ok=True)
    (settings / "settings.toml").write_text(f"[annotations]\nfolders = [{json.dumps(str(folder))}]\n")
    return folder


def scan(command, *options, quiet=0.05):
    """Scan when nobody has touched the folder for longer than `quiet`."""
    time.sleep(0.1)
    code, out, err = command("cases", "scan", "--quiet", quiet, "--json", *options)
    assert code == 0, err
    return json.loads(out), err


def erase_a_label(path):
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.where(voxels == 2, 0, voxels), image.affine), path)


def test_a_scan_keeps_what_is_new_once_and_a_correction_in_its_place(command, watched):
    first, err = scan(command)
    assert [(one["name"], one["outcome"]) for one in first["added"]] == [(f"c{n}", "new") for n in (71, 72, 73, 74)]
    assert "case_key, readable by you only" in err
    again, err = scan(command)
    assert (again["added"], again["unchanged"], err) == ([], 4, "")
    erase_a_label(watched / "labelsTr" / "c72.nii.gz")
    busy, err = scan(command, quiet=60)
    assert (busy["added"], [one["name"] for one in busy["waiting"]]) == ([], ["c72"])
    assert "waiting for c72" in err
    corrected, _ = scan(command)
    assert [(one["name"], one["outcome"]) for one in corrected["added"]] == [("c72", "replaced")]
    assert corrected["added"][0]["case_id"] == first["added"][1]["case_id"]


def test_a_bad_study_is_told_and_costs_no_other(command, watched):
    without_voxels(watched / "imagesTr" / "c71_0000.nii.gz")
    found, err = scan(command)
    assert len(found["added"]) == 3
    assert [one["name"] for one in found["left"]] == ["c71"]
    assert err.count("left c71") == 1
    code, out, _ = command("cases", "scan", "--quiet", 0)
    assert (code, out.splitlines()[-1]) == (0, "0 kept, 0 waiting, 4 unchanged, 0 left")
    assert len(scan(command, "--again")[0]["left"]) == 1


def test_without_watch_folders_the_settings_are_named(command):
    code, out, err = command("cases", "scan")
    assert (code, out) == (1, "")
    assert "[annotations]" in err


def test_improve_train_and_evaluate_learn_from_what_is_kept(command, watched, trained, tmp_path):
    ids = {one["case_id"] for one in scan(command)[0]["added"]}
    before = snapshot(watched)
    base = trained / "base.model"
    code, out, err = command("improve", "--base", base, "--out", tmp_path / "out", "--epochs", 2, "--json")
    assert code == 0, err
    assert {one["name"] for one in json.loads(out)["taken"]} == ids
    code, kept, err = command("evaluate", "--model", base, "--json")
    assert code == 0, err
    code, named, err = command("evaluate", "--model", base, "--data", watched, "--json")
    assert code == 0, err
    assert json.loads(kept)["dice"] == pytest.approx(json.loads(named)["dice"])
    code, out, err = command("train", "--out", tmp_path / "trained", "--epochs", 1, "--json")
    assert code == 0, err
    assert json.loads(out)["cases"] == 4
    assert snapshot(watched) == before


def test_with_nothing_named_and_nothing_kept_a_person_is_told_what_to_do(command, trained, tmp_path):
    code, out, err = command("improve", "--base", trained / "base.model", "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert "--data" in err
    assert "cases add" in err


def test_what_is_kept_is_learned_from_beside_what_is_named(command, watched, tmp_path):
    settings, wish = load_settings(tmp_path / "configuration"), {"labels": ("ball", "box"), "contrasts": 1}
    new = write_cases(tmp_path / "new", (72, 81), **NEW_SCANNER)
    together = CaseRequest((new,), with_kept=True)
    assert len(collect_cases(together, settings, **wish).cases) == 2, "nothing is kept yet"
    scan(command)
    found = collect_cases(together, settings, **wish)
    assert len(found.cases) == 5
    assert len({case.case_id for case in found.cases}) == 5, "c72 is one study, wherever it lies"
    assert [taken.name for taken in found.taken][:2] == ["c72", "c81"]
    assert len(found.left) == 1
    assert len(collect_cases(CaseRequest((new,)), settings, **wish).cases) == 2
