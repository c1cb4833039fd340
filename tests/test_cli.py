"""Every command as a person and a program use it: answers, exit codes, one line for what is refused."""

import gzip
import json
import pickle
import shutil
import stat
import subprocess
import sys
from uuid import UUID

import nibabel
import numpy as np
import pytest
from sites import four_volumes, save, snapshot, train_model, without_voxels, write_cases

from dafne_dante.models.file import read_model

COMMANDS = ["train", "improve", "predict", "evaluate", "inspect", "apply", "merge", "publish", "serve", "demo"]


def answer(result):
    """The one JSON object on stdout of a command that succeeded."""
    code, out, err = result
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


def refused(result, *, without):
    """The one line on stderr of a command that refused, which names no folder."""
    code, out, err = result
    assert (code, out) == (1, ""), err
    lines = [line for line in err.splitlines() if line.strip()]
    assert "Traceback" not in err
    assert str(without) not in err
    return lines[-1]


@pytest.mark.parametrize("name", [*COMMANDS, "keys", "server"])
def test_help_and_usage(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert "Usage" in out
    code, out, err = command(name, "--nonsense")
    assert (code, out) == (2, "")
    assert "--nonsense" in err


def test_version_and_quick_start():
    run = subprocess.run([sys.executable, "-m", "dafne_dante", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("dafne-dante ")
    probe = "import sys, dafne_dante.cli.main; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout == "False\n"


def test_train_evaluate_predict(command, tmp_path):
    data = write_cases(tmp_path / "cases", (1, 2, 3))
    trained = answer(command("train", "--data", data, "--out", tmp_path / "out", "--epochs", 1, "--json"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.model", "history.csv", "learning_curve.png"
    }  # fmt: skip
    assert trained["dice"].keys() == {"mean", "ball", "box"}
    model = tmp_path / "out" / "model.model"
    assert str(read_model(model).model_id) == trained["model_id"]
    scores = answer(command("evaluate", "--model", model, "--data", data, "--json"))
    assert scores.keys() == {"dice", "hd95_mm", "surface_dice", "tolerance_mm", "cases", "taken", "left"}
    assert scores["surface_dice"].keys() == scores["hd95_mm"].keys() == {"mean", "ball", "box"}
    assert ([one["annotated_slices"] for one in scores["taken"]], scores["left"]) == ([16] * 3, [])
    assert scores["dice"].keys() == {"mean", "ball", "box"}
    assert scores["cases"] == 3


def test_one_seed_gives_one_model(command, tmp_path):
    data = write_cases(tmp_path / "cases", (1, 2, 3))
    rows = []
    for name in ("a", "b"):
        answer(command("train", "--data", data, "--out", tmp_path / name, "--epochs", 1, "--seed", 3, "--json"))
        rows.append([line.split(",")[2:] for line in (tmp_path / name / "history.csv").read_text().splitlines()])
    assert rows[0] == rows[1]


def test_a_prediction_lies_in_the_grid_of_its_image(command, trained, tmp_path):
    """The same head stored with other axes gives the same mask in the world."""
    image = nibabel.load(trained / "own" / "imagesTr" / "c11_0000.nii.gz")
    turned = image.as_reoriented(nibabel.orientations.axcodes2ornt(("P", "I", "L")))
    nibabel.save(turned, tmp_path / "turned.nii.gz")
    masks = []
    for path in (trained / "own" / "imagesTr" / "c11_0000.nii.gz", tmp_path / "turned.nii.gz"):
        out = tmp_path / f"mask-{path.name}"
        told = answer(command("predict", "--model", trained / "base.model", "--image", path, "--out", out, "--json"))
        mask = nibabel.load(out)
        assert mask.shape == nibabel.load(path).shape
        assert np.allclose(mask.affine, nibabel.load(path).affine)
        assert told["voxels"]["ball"] == int((np.asarray(mask.dataobj) == 1).sum()) > 0
        masks.append(nibabel.as_closest_canonical(mask))
    assert np.array_equal(np.asarray(masks[0].dataobj), np.asarray(masks[1].dataobj))


def test_auto_keeps_to_its_minutes_and_says_why(command, trained, tmp_path):
    out = tmp_path / "out"
    code, text, told = command(
        "improve", "--data", trained / "new", "--base", trained / "base.model", "--out", out, "--minutes", 0.1
    )
    assert code == 0, told
    summary = json.loads((out / "summary.json").read_text())
    # Which of the two it is depends on how the tiny model does on three studies, which is not alike on all processors.
    reasons = {
        "lora": "there are only 3 studies to learn from",
        "gradual-unfreezing": "the model never saw what it is to find",
    }
    assert f"{summary['method']}, because {reasons[summary['method']]}; " in told + text
    assert 3 <= summary["epochs"] <= 30
    assert not (out / "choice.json").exists()


def test_improve_inspect_apply(command, trained, tmp_path):
    out = tmp_path / "out"
    options = ("--data", trained / "new", "--base", trained / "base.model", "--out", out, "--epochs", 3, "--json")
    summary = answer(command("improve", *options, "--method", "lora"))
    promised = {
        "dice_before",
        "dice_after",
        "delta_bytes",
        "model_bytes",
        "method",
        "epochs",
        "seconds",
        "gate",
        "cases",
    }
    assert promised <= summary.keys()
    account = {name: summary.pop(name) for name in ("taken", "left")}
    assert summary == json.loads((out / "summary.json").read_text()), "which names no study"
    assert (len(account["taken"]), account["left"]) == (summary["cases"], [])
    assert summary["dice_before"].keys() == summary["dice_after"].keys() == {"mean", "ball", "box"}
    assert (summary["method"], summary["epochs"], summary["cases"]) == ("lora", 3, 4)
    assert summary["delta_bytes"] == (out / "update.delta").stat().st_size
    assert {path.name for path in out.iterdir()} == {
        *("improved.model", "update.delta", "history.csv", "summary.json", "report.html"),
    }
    described = answer(command("inspect", out / "update.delta", "--json"))
    assert (described["kind"], described["signature_valid"], described["method"]) == ("delta", True, "lora")
    assert "no image" in described["statement"]
    assert answer(command("inspect", trained / "base.model", "--json"))["labels"] == ["ball", "box"]
    files = ("--base", trained / "base.model", "--delta", out / "update.delta", "--out", tmp_path / "applied.model")
    assert answer(command("apply", *files, "--json"))["update_id"] == described["update_id"]
    applied, improved = read_model(tmp_path / "applied.model"), read_model(out / "improved.model")
    assert applied.model_id == improved.model_id == UUID(int=7)
    assert all(bool((applied.weights[name] == value).all()) for name, value in improved.weights.items())
    for words in (("inspect", out / "update.delta"), ("inspect", trained / "base.model")):
        code, text, _ = command(*words)
        assert code == 0
        assert "labels: ball, box" in text


def test_keys(command, tmp_path):
    assert "keys create" in refused(command("keys", "show"), without=tmp_path)
    created = answer(command("keys", "create", "--json"))
    assert answer(command("keys", "show", "--json")) == created
    secret = tmp_path / "configuration" / "signing_key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    refused(command("keys", "create"), without=tmp_path)
    assert answer(command("keys", "show", "--json")) == created
    assert answer(command("keys", "trust", created["public_key"], "--name", "B", "--json"))["name"] == "B"
    refused(command("keys", "trust", "not-a-key", "--name", "C"), without=tmp_path)
    sealing = answer(command("keys", "create", "--seal", "--json"))
    assert sealing["public_key"] != created["public_key"]
    assert stat.S_IMODE((tmp_path / "configuration" / "seal_key").stat().st_mode) == 0o600
    refused(command("keys", "create", "--seal"), without=tmp_path)


def test_server_users_and_publish(command, trained, tmp_path):
    root = tmp_path / "server"
    shown = answer(command("server", "users", "add", "site-b", "--root", root, "--access", "Brain", "--json"))
    listed = answer(command("server", "users", "list", "--root", root, "--json"))
    assert listed == {"users": {"site-b": {"read": ["Brain"], "upload": ["Brain"], "merge": []}}}
    permitted = answer(
        command("server", "users", "permit", "site-b", "--root", root, "--type", "Leg", "--right", "read", "--json")
    )
    assert permitted == {"name": "site-b", "read": ["Brain", "Leg"], "upload": ["Brain"], "merge": []}
    again = answer(command("server", "users", "rotate", "site-b", "--root", root, "--json"))
    assert again["api_key"] != shown["api_key"]
    published = answer(
        command("publish", "--root", root, "--type", "Brain", "--model", trained / "base.model", "--json")
    )
    assert (root / "models" / "Brain" / f"{published['version']}.model").is_file()
    assert not any(
        made["api_key"][9:].encode() in content for content in snapshot(root).values() for made in (shown, again)
    )
    answer(command("server", "users", "revoke", "site-b", "--root", root, "--json"))
    assert answer(command("server", "users", "list", "--root", root, "--json")) == {"users": {}}


class Canary:
    def __reduce__(self):
        return exec, ("raise SystemExit('the canary sang')",)


def _empty(site):
    shutil.rmtree(site / "cases")
    (site / "cases").mkdir()


def _other_shape(site):
    path = site / "cases" / "labelsTr" / "c21.nii.gz"
    image = nibabel.load(path)
    save(path, np.asarray(image.dataobj)[:-1], image.affine)


def _unknown_value(site):
    path = site / "cases" / "labelsTr" / "c21.nii.gz"
    image = nibabel.load(path)
    volume = np.asarray(image.dataobj).copy()
    volume[0, 0, 0] = 9
    save(path, volume, image.affine)


def _other_labels(site):
    path = site / "cases" / "dataset.json"
    path.write_text(path.read_text().replace("ball", "liver"))


def _one_slice(site):
    images, labels = site / "cases" / "imagesTr", site / "cases" / "labelsTr"
    for name in ("c22", "c23", "c24"):
        (images / f"{name}_0000.nii.gz").unlink()
        (labels / f"{name}.nii.gz").unlink()
    for path in (images / "c21_0000.nii.gz", labels / "c21.nii.gz"):
        whole = nibabel.load(path)
        save(path, np.asarray(whole.dataobj)[..., :1], whole.affine)


def _keras(site):
    (site / "base.model").write_bytes(pickle.dumps({"type": "DynamicDLModel", "weights": [], "model_id": None}, 4))


SPOILED = {
    "an empty folder": (_empty, "expected"),
    "no folder": (lambda site: shutil.rmtree(site / "cases"), "expected"),
    "a truncated image": (lambda site: without_voxels(site / "cases/imagesTr/c21_0000.nii.gz"), "c21_0000.nii.gz"),
    "an image that is none": (lambda site: (site / "cases/imagesTr/c21_0000.nii.gz").write_bytes(b"x"), "c21_0000"),
    "an empty archive": (
        lambda site: (site / "cases/imagesTr/c21_0000.nii.gz").write_bytes(gzip.compress(b"")),
        "c21_0000.nii.gz",
    ),
    "four volumes": (lambda site: four_volumes(site / "cases/imagesTr/c21_0000.nii.gz"), "4D"),
    "a label of another shape": (_other_shape, "c21.nii.gz"),
    "an unknown label value": (_unknown_value, "9"),
    "other labels": (_other_labels, "liver"),
    "a single slice": (_one_slice, "expected at least 2 labelled slices"),
    "a Keras model": (_keras, "not supported"),
    "a model that would run code": (
        lambda site: (site / "base.model").write_bytes(pickle.dumps({"weights": Canary()}, 4)),
        "exec",
    ),
    "a truncated model": (lambda site: without_voxels(site / "base.model"), "expected"),
    "no model": (lambda site: (site / "base.model").unlink(), "base.model"),
    "a file where the folder should be": (lambda site: (site / "out").write_bytes(b"mine"), "out"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_improve_refuses_in_one_line_and_leaves_everything_as_it_was(command, trained, tmp_path, name):
    site = tmp_path / "site"
    shutil.copytree(trained / "new", site / "cases")
    shutil.copy(trained / "base.model", site / "base.model")
    spoil, expected = SPOILED[name]
    spoil(site)
    before = snapshot(site)
    options = ("--data", site / "cases", "--base", site / "base.model", "--out", site / "out", "--epochs", 1)
    assert expected in refused(command("improve", *options), without=tmp_path)
    assert snapshot(site) == before


@pytest.mark.parametrize("words", [
    ("evaluate", "--model", "{base}", "--data", "{empty}"),
    ("train", "--data", "{empty}", "--out", "{tmp}/out"),
    ("predict", "--model", "{base}", "--image", "{tmp}/missing.nii.gz", "--out", "{tmp}/mask.nii.gz"),
    ("predict", "--model", "{junk}", "--image", "{image}", "--out", "{tmp}/mask.nii.gz"),
    ("predict", "--model", "{base}", "--image", "{image}", "--out", "{tmp}/no/such/mask.nii.gz"),
    ("inspect", "{junk}"),
    ("inspect", "{tmp}/missing"),
    ("apply", "--base", "{base}", "--delta", "{junk}", "--out", "{tmp}/out.model"),
    ("merge", "--folder", "{empty}", "--type", "Brain", "--validation", "{own}"),
    ("publish", "--root", "{tmp}/root", "--type", "a/b", "--model", "{base}"),
    ("publish", "--root", "{tmp}/root", "--type", "Brain", "--model", "{junk}"),
    ("server", "users", "add", "a b", "--root", "{tmp}/root"),
    ("server", "users", "revoke", "nobody", "--root", "{tmp}/root"),
])  # fmt: skip
def test_other_commands_refuse_in_one_line(command, trained, tmp_path, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk").write_bytes(b"\x00" * 100)
    places = {
        "base": trained / "base.model",
        "own": trained / "own",
        "image": trained / "own" / "imagesTr" / "c11_0000.nii.gz",
        "empty": tmp_path / "empty",
        "junk": tmp_path / "junk",
        "tmp": tmp_path,
    }
    reason = refused(command(*(word.format(**places) for word in words)), without=tmp_path)
    assert len(reason) > 20
    assert not (tmp_path / "mask.nii.gz").exists()


@pytest.mark.parametrize("words", [
    ("improve", "--data", "x", "--out", "y"),
    ("improve", "--data", "x", "--out", "y", "--base", "b", "--server", "https://s/"),
    ("improve", "--data", "x", "--out", "y", "--server", "https://s/"),
    ("improve", "--data", "x", "--out", "y", "--base", "b", "--upload"),
    ("improve", "--data", "x", "--out", "y", "--base", "b", "--method", "magic"),
    ("train", "--data", "x", "--out", "y", "--architecture", "transformer"),
    ("train", "--data", "x", "--out", "y", "--epochs", "0"),
    ("merge", "--type", "t", "--validation", "v"),
    ("predict", "--model", "m", "--image", "i", "--out", "mask.txt"),
    ("serve", "--root", "r", "--port", "0"),
    ("nonsense",),
])  # fmt: skip
def test_wrong_use_is_exit_code_2(command, words):
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert "Usage" in err
    assert "Traceback" not in err


def test_a_delta_of_another_base_is_refused(command, trained, tmp_path):
    options = ("--data", trained / "new", "--base", trained / "base.model", "--out", tmp_path / "out", "--epochs", 1)
    answer(command("improve", *options, "--json"))
    train_model(tmp_path / "other.model", seed=5, epochs=1)
    delta = tmp_path / "out" / "update.delta"
    files = ("--base", tmp_path / "other.model", "--delta", delta, "--out", tmp_path / "x.model")
    assert "base" in refused(command("apply", *files), without=tmp_path)
    content = bytearray(delta.read_bytes())
    content[-1] ^= 1
    delta.write_bytes(bytes(content))
    files = ("--base", trained / "base.model", "--delta", delta, "--out", tmp_path / "x.model")
    refused(command("apply", *files), without=tmp_path)
    assert not (tmp_path / "x.model").exists()


def test_a_disk_that_is_full_while_writing_leaves_no_half_file(trained, tmp_path):
    """The process may not write files of more than 64 KiB: the kernel stops it in the middle of improved.model."""
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "from dafne_dante.cli import main\n"
        "main()\n"
    )
    out = tmp_path / "out"
    options = ["--data", trained / "new", "--base", trained / "base.model", "--out", out, "--epochs", "1"]
    run = subprocess.run(
        [sys.executable, "-c", program, "improve", *map(str, options)],
        capture_output=True,
        text=True,
        env={"DAFNE_DANTE_CONFIG": str(tmp_path / "configuration"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        check=False,
    )
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert "cannot write improvement.checkpoint: File too large" in run.stderr.splitlines()[-1]
    assert not out.exists()


def test_settings_with_faults_are_told_all_at_once(command, trained, tmp_path):
    folder = tmp_path / "configuration"
    folder.mkdir()
    (folder / "settings.toml").write_text(
        '[federation]\nserver = "http://example.org"\ntimeout_s = "x"\napi_key = "SECRET"\n'
    )
    options = ("--data", trained / "new", "--base", trained / "base.model", "--out", tmp_path / "out")
    reason = refused(command("improve", *options), without=tmp_path)
    assert "server" in reason
    assert "timeout_s" in reason
    assert "SECRET" not in reason
