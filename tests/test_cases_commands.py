"""`dafne-dante cases ...` as a person and a program use it."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from sites import snapshot, write_cases

from dafne_dante.annotations.nifti.plain import find_plain_studies
from dafne_dante.annotations.reading import read_case

PNG = b"\x89PNG\r\n\x1a\n"


def answer(result):
    code, out, err = result
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


def refused(result, *, without):
    code, out, err = result
    assert (code, out) == (1, ""), err
    assert "Traceback" not in err
    assert str(without) not in err
    return [line for line in err.splitlines() if line.strip()][-1]


@pytest.fixture
def filled(command, tmp_path):
    """A store with two cases, and what `cases add` answered."""
    return answer(command("cases", "add", write_cases(tmp_path / "in", (1, 2)), "--json"))


def change_label(folder, name):
    path = folder / "labelsTr" / f"{name}.nii.gz"
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[voxels == 2] = 0
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)


def test_add_list_and_remove(command, tmp_path, filled):
    ids = [added["case_id"] for added in filled["added"]]
    assert [added["outcome"] for added in filled["added"]] == ["new", "new"]
    assert (filled["left"], filled["dropped"]) == ([], [])
    listed = answer(command("cases", "list", "--json"))
    assert [case["case_id"] for case in listed["cases"]] == sorted(ids)
    first = listed["cases"][0]
    assert first.keys() == {
        "case_id", "labels", "shape", "contrasts", "annotated_slices", "bytes", "age_days"
    }  # fmt: skip
    assert first["labels"] == ["ball", "box"]
    assert first["annotated_slices"] == first["shape"][2]
    assert listed["bytes"] == sum(case["bytes"] for case in listed["cases"])
    store = tmp_path / "configuration" / "cases"
    assert {path.name[:16] for path in store.glob("*.case")} == set(ids)
    code, out, _ = command("cases", "list")
    assert code == 0
    assert all(case_id in out for case_id in ids)
    assert answer(command("cases", "remove", ids[0], "--json")) == {"removed": ids[0]}
    assert ids[0] in refused(command("cases", "remove", ids[0]), without=tmp_path)
    assert len(answer(command("cases", "list", "--json"))["cases"]) == 1


def test_a_correction_replaces_and_the_same_again_does_nothing(command, tmp_path, filled):
    ids = [added["case_id"] for added in filled["added"]]
    change_label(tmp_path / "in", "c1")
    again = answer(command("cases", "add", tmp_path / "in", "--json"))["added"]
    assert [added["case_id"] for added in again] == ids
    assert [added["outcome"] for added in again] == ["replaced", "unchanged"]


def test_the_key_is_told_once(command, tmp_path):
    data = write_cases(tmp_path / "in", (1,))
    assert "case_key, readable by you only" in command("cases", "add", data)[2]
    assert "case_key" not in command("cases", "add", data)[2]


def test_what_is_left_is_told_with_its_reason(command, tmp_path):
    folder = write_cases(tmp_path / "in", (1, 2))
    shutil.copy(folder / "imagesTr" / "c1_0000.nii.gz", folder / "imagesTr" / "c2_0000.nii.gz")
    code, out, err = command("cases", "add", folder, "--json")
    told = json.loads(out)
    assert code == 0
    assert len(told["added"]) == 1
    assert "every image once" in told["left"][0]["reason"]
    assert "every image once" in err
    (tmp_path / "empty").mkdir()
    assert "expected labelled studies" in refused(command("cases", "add", tmp_path / "empty"), without=tmp_path)
    assert "liver" in refused(command("cases", "add", folder, "--labels", "liver"), without=tmp_path)


def test_chosen_labels_only_in_their_order(command, tmp_path):
    folder = write_cases(tmp_path / "in", (1,))
    answer(command("cases", "add", folder, "--labels", "box, ball", "--json"))
    assert answer(command("cases", "list", "--json"))["cases"][0]["labels"] == ["box", "ball"]


def test_limits_of_the_settings_hold(command, tmp_path):
    (tmp_path / "configuration").mkdir()
    elsewhere = tmp_path / "elsewhere"
    settings = f"[annotations]\nkeep_cases = 2\nstore = '{elsewhere.as_posix()}'\n"
    (tmp_path / "configuration" / "settings.toml").write_text(settings)
    told = answer(command("cases", "add", write_cases(tmp_path / "in", (1, 2, 3)), "--json"))
    assert told["dropped"] == [told["added"][0]["case_id"]]
    assert len(list(elsewhere.glob("*.case"))) == 2


def test_show_draws_a_picture(command, tmp_path, filled):
    case_id = filled["added"][0]["case_id"]
    told = answer(command("cases", "show", case_id, "--out", tmp_path / "case.png", "--json"))
    assert told["labels"] == ["ball", "box"]
    assert (tmp_path / "case.png").read_bytes().startswith(PNG)
    assert "1 contrasts, found number 2" in refused(
        command("cases", "show", case_id, "--out", tmp_path / "x.png", "--contrast", 2), without=tmp_path
    )
    refused(command("cases", "show", "0" * 16, "--out", tmp_path / "x.png"), without=tmp_path)
    assert not (tmp_path / "x.png").exists()


def test_what_is_exported_is_read_again_as_the_same_case(command, tmp_path, filled):
    case_id = filled["added"][0]["case_id"]
    out = tmp_path / "out"
    files = answer(command("cases", "export", case_id, "--out", out, "--json"))["files"]
    names = ["image.nii.gz", "mask_ball.nii.gz", "mask_box.nii.gz", "annotated.json"]
    assert files == [f"{case_id}/{name}" for name in names]
    again = answer(command("cases", "add", out, "--json"))["added"]
    assert [(added["case_id"], added["outcome"]) for added in again] == [(case_id, "unchanged")]
    (study,) = find_plain_studies(out)
    assert read_case(study)[0].labels == ("ball", "box")
    before = snapshot(out)
    refused(command("cases", "export", case_id, "--out", out), without=tmp_path)
    assert snapshot(out) == before


def test_verify_names_what_is_damaged_and_repair_makes_the_index_anew(command, tmp_path, filled):
    store = tmp_path / "configuration" / "cases"
    assert len(answer(command("cases", "verify", "--json"))["sound"]) == 2
    index = (store / "index.sqlite").read_bytes()
    (store / "index.sqlite").write_bytes(b"\0" * len(index))
    assert "--repair" in refused(command("cases", "verify"), without=tmp_path)
    assert len(answer(command("cases", "verify", "--repair", "--json"))["sound"]) == 2
    victim = next(store.glob("*.case"))
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    code, out, _ = command("cases", "verify", "--json")
    assert code == 1
    assert [damage["case_id"] for damage in json.loads(out)["damaged"]] == [victim.name[:16]]
    assert victim.name[:16] in refused(
        command("cases", "show", victim.name[:16], "--out", tmp_path / "x.png"), without=tmp_path
    )
    command("cases", "remove", victim.name[:16])
    assert command("cases", "verify")[0] == 0


def test_a_lost_key_is_told_and_the_store_stays(command, tmp_path, filled):
    (tmp_path / "configuration" / "case_key").unlink()
    before = snapshot(tmp_path)
    for words in (("list",), ("verify",), ("verify", "--repair"), ("add", tmp_path / "in")):
        assert "restore it from a copy" in refused(command("cases", *words), without=tmp_path)
    assert snapshot(tmp_path) == before


def test_without_a_store_nothing_is_made(command, tmp_path):
    assert answer(command("cases", "list", "--json")) == {"cases": [], "damaged": [], "bytes": 0}
    for words in (("verify",), ("remove", "0" * 16), ("export", "0" * 16, "--out", tmp_path / "x")):
        assert "cases add" in refused(command("cases", *words), without=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [
    ("add",), ("show", "x"), ("show", "x", "--out", "x.jpg"), ("export", "x", "--out", "y", "--format", "tiff"),
    ("remove",), ("nonsense",), ("verify", "--nonsense"),
])  # fmt: skip
def test_wrong_use_is_exit_code_2(command, words):
    code, out, err = command("cases", *words)
    assert (code, out) == (2, "")
    assert "Usage" in err
