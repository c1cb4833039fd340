"""Outlines and slices of the report: where they lie, which way round, and that they stay bounded."""

import base64
import io
import re

import numpy as np
import pytest
from phantoms import make_case
from PIL import Image
from reports import measure, report_facts

from dafne_dante.plugin.report.charts import dice_curves, dumbbells
from dafne_dante.plugin.report.measured import pair_measurements
from dafne_dante.plugin.report.outlines import outline_path
from dafne_dante.plugin.report.slices import choose_cases, picture_of


def filled(path, shape):
    """The oracle: the pixels whose centre is inside of the loops, by the even-odd rule."""
    inside = np.zeros(shape, bool)
    for x, y, moves in re.findall(r"M(\d+) (\d+)([^z]*)z", path):
        corners = [(int(x), int(y))]
        for axis, step in re.findall(r"([hv])(-?\d+)", moves):
            left, top = corners[-1]
            corners.append((left + int(step), top) if axis == "h" else (left, top + int(step)))
        for (x1, y1), (x2, y2) in zip(corners, [*corners[1:], corners[0]], strict=True):
            assert (x1 == x2) != (y1 == y2)
            if x1 == x2:
                inside[min(y1, y2) : max(y1, y2), x1:] ^= True
    return inside


@pytest.mark.parametrize("seed", range(5))
def test_an_outline_encloses_just_its_label(seed):
    mask = (np.random.default_rng(seed).random((13, 17)) < 0.3 + 0.1 * seed).astype(np.uint8)
    assert np.array_equal(filled(outline_path(mask), mask.shape), mask > 0)


def test_nothing_has_no_outline_and_a_pixel_has_four_sides():
    assert outline_path(np.zeros((4, 5), np.uint8)) == ""
    one = np.zeros((4, 5), np.uint8)
    one[1, 2] = 3
    assert outline_path(one) == "M2 1h1v1h-1z"


def test_labels_that_touch_are_outlined_each():
    both = np.array([[1, 2]], np.uint8)
    assert outline_path(both).count("M") == 2


def test_a_slice_full_of_specks_is_outlined_coarsely():
    board = (np.indices((512, 512)).sum(axis=0) % 2).astype(np.uint8)
    noise = (np.random.default_rng(0).random((512, 512)) < 0.5).astype(np.uint8)
    assert len(outline_path(board)) < 200_000
    assert 0 < len(outline_path(noise)) < 200_000


def turned(case, *axes):
    """The same patient in an image whose axes run the other way."""
    affine = case.affine.copy()
    for axis in axes:
        affine[:, 3] += affine[:, axis] * (case.shape[axis] - 1)
        affine[:, axis] *= -1
    image = np.flip(case.image, [1 + axis for axis in axes]).copy()
    segmentation = np.flip(case.segmentation, axes).copy()
    return type(case)(case.case_id, image, segmentation, case.annotated, affine, case.labels)


def picture(case, missed=3):
    (held_out,) = pair_measurements(measure([case], [missed]), measure([case], [0]))
    return picture_of("", held_out)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_the_patients_right_is_on_the_left_whatever_the_affine(axes):
    plain, other = picture(make_case(4), 16), picture(turned(make_case(4), *axes), 16)
    assert (plain.left, plain.top) == (other.left, other.top) == ("R", "A")
    assert (plain.png, plain.number) == (other.png, other.number)
    assert filled(plain.wrong_before, (plain.rows, plain.columns)).sum() > 0
    shape = (plain.rows, plain.columns)
    assert np.array_equal(filled(plain.reference, shape), filled(other.reference, shape))


def test_the_slice_is_one_that_was_labelled_and_says_most():
    annotated = np.arange(16) % 4 == 1
    case = make_case(5, annotated=annotated)
    shown = picture(case, missed=16)
    assert annotated[shown.number - 1]
    drawn = (case.segmentation > 0).sum(axis=(0, 1))
    assert drawn[shown.number - 1] == drawn[annotated].max()
    assert shown.wrong_after == ""


def test_the_picture_shows_the_image_and_keeps_the_voxels_shape():
    shown = picture(make_case(6))
    image = Image.open(io.BytesIO(base64.b64decode(shown.png)))
    assert image.size == (shown.columns, shown.rows)
    assert shown.width_mm / shown.columns == pytest.approx(2.0)


def test_best_median_and_worst_are_chosen_by_the_improved_model():
    facts = report_facts(after=(2, 16, 8))
    chosen = dict(choose_cases(facts.held_out))
    scores = {rank: one.after.dice["mean"] for rank, one in chosen.items()}
    assert scores["Best"] > scores["Median"] > scores["Worst"]
    assert [rank for rank, _ in choose_cases(facts.held_out[:2])] == ["Best", "Worst"]
    assert [rank for rank, _ in choose_cases(facts.held_out[:1])] == [""]


def test_predictions_come_back_bit_by_bit():
    case = make_case(7)
    (one,) = measure([case], [4])
    assert np.array_equal(one.prediction()[:, :, 4:], case.segmentation[:, :, 4:])
    assert not one.prediction()[:, :, :4].any()


def test_charts_lie_in_their_canvas():
    facts = report_facts()
    chart = dumbbells(facts.summary.dice_before, facts.summary.dice_after, facts.held_out)
    across = [x for row in chart.rows for x in (row.before, row.after, *row.dots_before, *row.dots_after)]
    assert across
    assert all(12 <= x <= 328 for x in across)
    assert all(0 < row.y < chart.height - 20 for row in chart.rows)
    assert [tick.text for tick in chart.ticks][-1] == "1.0"
    curve = dice_curves(facts.history, ("ball", "box"), 2)
    points = [point.split(",") for line in curve.lines for point in line.points.split()]
    assert all(40 <= float(x) <= 330 and 12 <= float(y) <= 176 for x, y in points)
    assert dice_curves((), ("ball",), 1) is None
