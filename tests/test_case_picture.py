"""The picture of a case tells left from right, what was labelled from what was not, and where each label is."""

import sys

import numpy as np
import pytest
from matplotlib.image import imread

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.picture import Plane, choose_planes, draw_case
from dafne_dante.errors import SettingsError, StorageError

SHAPE = (12, 10, 8)
ORANGE, BLUE = (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)


def drawn_case(*, affine=None, labels=("left", "right"), annotated=None, shape=SHAPE):
    """A label at each end of X, on all slices that were labelled."""
    segmentation = np.zeros(shape, np.uint8)
    segmentation[1:3, 3:6], segmentation[-3:-1, 3:6] = 1, 2
    slices = np.ones(shape[2], bool) if annotated is None else np.asarray(annotated, bool)
    segmentation[..., ~slices] = 0
    image = np.full((1, *shape), 100.0, np.float32)
    image[:, :1] = 0
    return Case("0" * 16, image, segmentation, slices, np.eye(4) if affine is None else affine, labels)


def columns_of(path, colour):
    """Where along the first panel's width the colour is, 0 to 1."""
    picture = np.rint(imread(path)[..., :3] * 255)
    panel = picture[: picture.shape[0] // 4, : picture.shape[1] // 3]
    return np.flatnonzero((np.abs(panel - colour).max(axis=2) < 12).any(axis=0)) / panel.shape[1]


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, 1, 1, 1])])
def test_each_label_is_outlined_in_its_colour_with_the_patients_right_on_the_left(tmp_path, affine):
    draw_case(tmp_path / "a.png", drawn_case(affine=affine))
    first, last = columns_of(tmp_path / "a.png", ORANGE), columns_of(tmp_path / "a.png", BLUE)
    assert first.size
    assert last.size
    # Voxels that run to the patient's right end on the left of the picture.
    on_the_left, on_the_right = (last, first) if affine[0, 0] > 0 else (first, last)
    assert on_the_left.max() < 0.5 < on_the_right.min()


@pytest.mark.parametrize(("affine", "letters"), [
    (np.eye(4), "LRPA"), (np.diag([-1.0, 1, 1, 1]), "RLPA"), (np.diag([1.0, -2, 1, 1]), "LRAP"),
    (np.array([[0.0, 0, -5, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]), "PAIS"),
    (np.array([[0.9, 0.3, 0, 0], [-0.3, 0.9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "LRPA"),
])  # fmt: skip
def test_letters_say_which_side_is_where(affine, letters):
    assert "".join(Plane(2, 0).letters(affine)) == letters


def test_planes_run_right_and_up_along_their_axes():
    volume = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    for plane in (Plane(0, 3), Plane(1, 3), Plane(2, 3)):
        cut = plane.cut(volume)
        assert cut.shape == (SHAPE[plane.up], SHAPE[plane.across])
        assert (np.diff(cut, axis=1) > 0).all()
        assert (np.diff(cut, axis=0) < 0).all()


def test_slices_are_spread_over_those_that_were_labelled():
    annotated = np.arange(40) % 2 == 1
    planes = choose_planes(drawn_case(annotated=annotated, shape=(12, 10, 40)))
    assert [plane.axis for plane in planes[:3]] == [2, 1, 0]
    slices = [plane.index for plane in planes[3:]]
    assert len(slices) == 9
    assert (slices[0], slices[-1]) == (1, 39)
    assert all(annotated[index] for index in slices)
    few = choose_planes(drawn_case(annotated=np.arange(40) == 17, shape=(12, 10, 40)))
    assert few[0] == few[3] == Plane(2, 17)
    assert len(few) == 4


def test_what_nobody_labelled_is_darker(tmp_path):
    """The coronal plane of a half-labelled image: its upper half is dimmed."""
    draw_case(tmp_path / "a.png", drawn_case(annotated=np.arange(8) < 4))
    picture = imread(tmp_path / "a.png")[..., :3].mean(axis=2)
    panel = picture[: picture.shape[0] // 2, picture.shape[1] // 3 : 2 * picture.shape[1] // 3]
    greys = panel[:, int(panel.shape[1] * 0.45)]
    inside = greys[greys > 0.05]
    assert inside[: len(inside) // 3].mean() < 0.6 * inside[-len(inside) // 3 :].mean()


@pytest.mark.parametrize("case", [
    drawn_case(labels=tuple(f"structure {number} with a name that is long" for number in range(60))),
    drawn_case(labels=("$\\frac$ {a}", "right")), drawn_case(shape=(6, 6, 1)),
    Case("0" * 16, np.zeros((1, *SHAPE), np.float32), np.zeros(SHAPE, np.uint8), np.zeros(8, bool), np.eye(4), ("a",)),
    drawn_case(affine=np.diag([1, 1, 30.0, 1])),
], ids=["many labels", "mathematics", "one slice", "nothing", "very thick"])  # fmt: skip
def test_odd_cases_are_drawn(tmp_path, case):
    draw_case(tmp_path / "a.png", case)
    assert imread(tmp_path / "a.png").shape[2] == 4


def test_what_cannot_be_drawn_is_told(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="1 contrasts, found number 4"):
        draw_case(tmp_path / "a.png", drawn_case(), channel=3)
    with pytest.raises(StorageError):
        draw_case(tmp_path / "missing" / "a.png", drawn_case())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SettingsError, match=r"dafne-dante\[pictures\]"):
        draw_case(tmp_path / "a.png", drawn_case())
    assert list(tmp_path.iterdir()) == []
