"""Suggestions for names: useful, and never the other side."""

import itertools

import numpy as np
import pytest
from sites import train_model
from sources import write_plain
from typer.testing import CliRunner

from dafne_dante.annotations.suggestions import hint, suggest_labels
from dafne_dante.cli.main import application
from dafne_dante.settings_document import tomllib

THIGH = tuple(
    f"{name} {side}"
    for name in ("Vastus Lateralis", "Vastus Medialis", "Vastus Intermedius", "Rectus Femoris", "Gracilis")
    for side in "LR"
)


def best(name, labels=THIGH):
    (found,) = suggest_labels([name], labels)
    return found.labels[0] if found.clear else None


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("vast lat left", "Vastus Lateralis L"),
        ("VM_R", "Vastus Medialis R"),
        ("Rectus femor. rechts", "Rectus Femoris R"),
        ("femoris rectus (L)", "Rectus Femoris L"),
        ("Gracillis R", "Gracilis R"),
        ("Grácilis L", "Gracilis L"),
        ("gracilisleft", "Gracilis L"),
    ],
)
def test_names_that_are_like_a_label(name, label):
    assert best(name) == label


@pytest.mark.parametrize("name", ["Vastus L", "Tumour R", "Gracilis", "Gracilis L R", "Vastus 2 L"])
def test_names_that_a_person_must_judge(name):
    assert best(name) is None


@pytest.mark.parametrize(
    ("left", "right"), [("L", "R"), ("left", "right"), ("links", "rechts"), ("sx", "dx"), ("gauche", "droite")]
)
def test_left_is_never_right(left, right):
    for (name, core), side in itertools.product((("Vastus", "Vastus"), ("Gracilis", "Gracils")), (left, right)):
        labels = tuple(f"{name} {one}" for one in "LR")
        for spelled in (f"{core} {side}", f"{side}_{core}", f"{core}{side.title()}", f"{core} {side} 3", f"m {side} x"):
            found = suggest_labels([spelled], labels)[0].labels
            assert f"{name} {'R' if side == left else 'L'}" not in found


def test_opposites_are_not_alike():
    assert suggest_labels(["Vastus Medialis"], ["Vastus Lateralis"])[0].labels == ()
    assert suggest_labels(["vertebra L1"], ["vertebra L2"])[0].labels == ()
    assert hint(["hepar"], ["liver"]) == ""
    assert hint(["livr", "couch"], ["liver"]) == "livr: perhaps liver"


def test_a_block_for_the_settings_is_printed_and_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(tmp_path / "settings"))
    labels = train_model(tmp_path / "a.model", epochs=1).plan.labels
    masks = {name: np.zeros((4, 4, 3), bool) for name in (f"{labels[0]}x", "couch")}
    for mask in masks.values():
        mask[1:3, 1:3] = True
    write_plain(tmp_path / "data", np.zeros((4, 4, 3)), masks, np.eye(4))
    line = ["labels", "suggest", "--data", str(tmp_path / "data"), "--model", str(tmp_path / "a.model")]
    done = CliRunner().invoke(application, line)
    assert done.exit_code == 0, done.output
    assert tomllib.loads(done.stdout)["labels"] == {f"{labels[0]}x": labels[0]}
    assert "# couch" in done.stdout
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "settings.toml").write_text(done.stdout)
    again = CliRunner().invoke(application, line)
    assert f"{labels[0]}x" not in again.stdout
