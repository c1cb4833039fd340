"""The learning curve is drawn for any run and any label that a file may name."""

import sys

import matplotlib.image
import pytest

from dafne_dante.errors import SettingsError
from dafne_dante.training.curve import draw_learning_curve
from dafne_dante.training.history import EpochRecord


def drawn(path, labels=("a",), *, epochs=3, dice=0.5, best=1):
    records = [
        EpochRecord(
            epoch, float(epoch), 1 / epoch, None if dice is None else 1.0, dict.fromkeys(("mean", *labels), dice)
        )
        for epoch in range(1, epochs + 1)
    ]
    draw_learning_curve(path, records, labels, best)
    return matplotlib.image.imread(path)


LABELS = {
    "a formula that is none": "$\\frac$",
    "an underscore, which legends leave out": "_hidden",
    "letters that the font lacks": "筋肉",
    "a very long name": "a" * 5_000,
    "an empty line": "\n",
}


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
def test_any_label_can_be_drawn(tmp_path, label):
    picture = drawn(tmp_path / "curve.png", (label,))
    assert picture.shape == (440, 1100, 4)
    assert (picture != drawn(tmp_path / "other.png", ("x",))).any(), "the label is in the legend"


@pytest.mark.parametrize("changes", [{"epochs": 4}, {"dice": 0.6}, {"best": 2}, {"dice": None}, {"epochs": 1}])
def test_the_picture_shows_the_run(tmp_path, changes):
    plain, other = drawn(tmp_path / "curve.png"), drawn(tmp_path / "other.png", **changes)
    assert (plain != other).any()


def test_of_many_labels_twelve_are_drawn(tmp_path):
    names = [f"label {number}" for number in range(254)]
    assert (drawn(tmp_path / "many.png", names) == drawn(tmp_path / "twelve.png", names[:12])).all()


def test_without_matplotlib_the_cure_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SettingsError, match="pictures"):
        drawn(tmp_path / "curve.png")
    assert list(tmp_path.iterdir()) == []
