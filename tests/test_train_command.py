"""`dafne-dante train` as a person uses it: any architecture, folds, a picture, and a kill that costs nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from sites import snapshot, write_cases

from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import digest_weights
from dafne_dante.plugin.unfinished import CHECKPOINT

FILES = ["history.csv", "learning_curve.png", "model.model"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("data"), (41, 42, 43, 44))


def answer(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("architecture", ["unet2d", "unet3d", "dynunet"])
def test_every_architecture_trains_and_predicts(command, data, tmp_path, architecture):
    told = answer(command(
        "train", "--data", data, "--out", tmp_path / "out", "--epochs", 2, "--architecture", architecture,
        "--memory-gb", 0.5, "--json",
    ))  # fmt: skip
    assert (told["architecture"], told["cases"], told["epochs"]) == (architecture, 4, 2)
    assert told["why"]["architecture"].startswith(architecture)
    assert names(tmp_path / "out") == FILES
    assert (tmp_path / "out" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    rows = (tmp_path / "out" / "history.csv").read_text().splitlines()
    assert rows[0] == (
        "epoch,seconds,train_loss,val_loss,dice_mean,dice_ball,dice_box,trainable_parameters,learning_rate"
    )
    assert len(rows) == 3
    assert told["dice"].keys() == told["hd95_mm"].keys() == told["surface_dice"].keys() == {"mean", "ball", "box"}
    measured = answer(command("evaluate", "--model", tmp_path / "out" / "model.model", "--data", data, "--json"))
    assert measured["cases"] == 4
    assert read_model(tmp_path / "out" / "model.model").plan.architecture == architecture


def test_folds_hold_every_study_out_once_and_the_model_learns_from_all(command, data, tmp_path):
    options = ("--data", data, "--epochs", 2, "--architecture", "unet2d", "--memory-gb", 0.3)
    code, out, err = command("train", "--out", tmp_path / "out", "--folds", 2, "--json", *options)
    assert code == 0, err
    told = json.loads(out)
    assert err.count("2 cases to learn from") == 2
    assert "training on all 4 cases for" in err
    folds = told["folds"]
    assert len(folds["folds"]) == len(folds["best_epochs"]) == 2
    assert folds["mean"]["mean"] == pytest.approx(sum(fold["mean"] for fold in folds["folds"]) / 2)
    assert folds["spread"]["mean"] is not None
    assert folds["hd95_mm"].keys() == folds["surface_dice"].keys() == {"mean", "spread"}
    assert json.loads((tmp_path / "out" / "folds.json").read_text()) == folds
    assert told["epochs"] == max(1, round(sum(folds["best_epochs"]) / 2))
    code, out, err = command("train", "--out", tmp_path / "more", "--folds", 5, *options)
    assert (code, out) == (1, "")
    assert "5 folds of 4 studies" in err
    assert not (tmp_path / "more").exists()


def start(out, configuration, data, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "dafne_dante", "train", "--data", str(data), "--out", str(out), "--epochs", "6",
         "--architecture", "unet2d", "--memory-gb", "0.3", *options],
        env={**os.environ, "DAFNE_DANTE_CONFIG": str(configuration), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def weights(folder):
    return digest_weights(read_model(folder / "model.model").weights)


def test_a_killed_training_is_resumed_to_the_same_weights(command, data, tmp_path):
    with start(tmp_path / "whole", tmp_path / "configuration", data) as process:
        assert process.wait(timeout=240) == 0
    out = tmp_path / "killed"
    with start(out, tmp_path / "configuration", data) as process:
        deadline = time.monotonic() + 120
        while not (out / CHECKPOINT).exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    assert CHECKPOINT in names(out)
    before = snapshot(out)
    code, _, err = command("train", "--data", data, "--out", out, "--epochs", 6)
    assert code == 1
    assert "go on with --resume" in err
    code, _, err = command("train", "--data", data, "--out", out, "--epochs", 6, "--seed", 9, "--resume")
    assert code == 1
    assert "found other architecture, memory-gb, seed" in err
    assert {name: before[name] for name in before if CHECKPOINT in str(name)}.items() <= snapshot(out).items()
    with start(out, tmp_path / "configuration", data, "--resume") as process:
        assert process.wait(timeout=240) == 0, process.stderr.read()
    assert weights(out) == weights(tmp_path / "whole")
    assert [name for name in names(out) if not name.startswith(".")] == FILES


def test_with_nothing_to_resume_training_begins(command, data, tmp_path):
    options = ("--data", data, "--epochs", 1, "--architecture", "unet2d", "--memory-gb", 0.3)
    code, _, err = command("train", "--out", tmp_path / "out", "--resume", *options)
    assert code == 0, err
    assert "training begins" in err
    assert names(tmp_path / "out") == FILES
