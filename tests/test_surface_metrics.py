"""HD95 and surface Dice against MONAI's, against distances counted by hand, and on slices that few labelled."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from phantoms import LABELS, make_case, tiny_plan

from dafne_dante.models.build import build_network
from dafne_dante.training.evaluate import evaluate_cases, measure_cases
from dafne_dante.training.surface_metrics import SurfaceScore, surface_scores

SPACING = (0.7, 1.1, 3.0)
EVERYWHERE = np.ones(14, bool)


def blobs(seed):
    """Two labels as smooth random shapes (20, 18, 14)."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.arange(size) for size in (20, 18, 14)], indexing="ij")
    result = np.zeros((20, 18, 14), np.uint8)
    for value in (1, 2):
        a, b, c = (random.uniform(5, size - 5) for size in result.shape)
        result[(x - a) ** 2 / 20 + (y - b) ** 2 / 16 + (z - c) ** 2 / 9 < 1] = value
    return result


@pytest.mark.parametrize("seed", range(6))
def test_both_equal_monai_where_everything_is_annotated(seed):
    prediction, reference = blobs(seed), blobs(seed + 100)
    found = surface_scores(prediction, reference, EVERYWHERE, SPACING, LABELS, tolerance_mm=2.0)
    one, other = (
        torch.stack([torch.from_numpy(volume == value) for value in (1, 2)])[None] for volume in (prediction, reference)
    )
    distance = compute_hausdorff_distance(one, other, include_background=True, percentile=95, spacing=SPACING)
    near = compute_surface_dice(one, other, [2.0, 2.0], include_background=True, spacing=SPACING)
    for index, name in enumerate(LABELS):
        assert found[name].hd95_mm == pytest.approx(float(distance[0, index]), abs=1e-4)
        assert found[name].surface_dice == pytest.approx(float(near[0, index]), abs=1e-6)


def cube(low, high, shape=(12, 12, 12)):
    volume = np.zeros(shape, np.uint8)
    volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    return volume


def test_a_shift_costs_its_millimetres():
    reference = cube((3, 3, 3), (8, 8, 8))
    for axis, spacing in enumerate(SPACING):
        low, high = [3, 3, 3], [8, 8, 8]
        low[axis], high[axis] = low[axis] + 2, high[axis] + 2
        moved = cube(low, high)
        score = surface_scores(moved, reference, np.ones(12, bool), SPACING, ["a"], tolerance_mm=0.1)["a"]
        assert score.hd95_mm == pytest.approx(2 * spacing)
        assert score.surface_dice < 0.7
        wide = surface_scores(moved, reference, np.ones(12, bool), SPACING, ["a"], tolerance_mm=2 * spacing + 1e-6)
        assert wide["a"].surface_dice == 1.0


def test_what_nobody_annotated_makes_no_surface_and_changes_nothing():
    """The prediction agrees in the annotated slices: whatever it says elsewhere, and wherever these end."""
    annotated = np.zeros(12, bool)
    annotated[[5, 6]] = True
    reference = cube((3, 3, 5), (8, 8, 7))
    for prediction in (cube((3, 3, 5), (8, 8, 7)), cube((3, 3, 0), (8, 8, 12)), cube((3, 3, 4), (8, 8, 9))):
        score = surface_scores(prediction, reference, annotated, SPACING, ["a"])["a"]
        assert score == SurfaceScore(0.0, 1.0)
    narrower = cube((4, 3, 0), (8, 8, 12))
    score = surface_scores(narrower, reference, annotated, SPACING, ["a"], tolerance_mm=0.5)["a"]
    assert score.hd95_mm == pytest.approx(0.7)
    # In each slice the contours have 16 and 14 voxels; 5 of the lost side and 3 of the new one lie off the other.
    assert score.surface_dice == pytest.approx((16 - 5 + 14 - 3) / 30)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        (0, 0, SurfaceScore(None, None)),
        (1, 0, SurfaceScore(None, None)),
        (0, 1, SurfaceScore(None, 0.0)),
    ],
)
def test_what_does_not_exist_is_not_measured(prediction, reference, expected):
    shape = cube((3, 3, 3), (8, 8, 8))
    found = surface_scores(prediction * shape, reference * shape, np.ones(12, bool), SPACING, ["a"])
    assert found == {"a": expected}


def test_a_label_that_fills_all_that_is_known_has_no_border():
    """Annotated slices are in the middle, and the label covers them to the image's edge: only the edge is a border."""
    full = np.ones((6, 6, 6), np.uint8)
    annotated = np.array([False, False, True, True, False, False])
    assert surface_scores(full, full, annotated, SPACING, ["a"])["a"] == SurfaceScore(0.0, 1.0)


def test_cases_are_averaged_and_dice_is_the_same_as_before():
    plan = tiny_plan()
    torch.manual_seed(3)
    network, cases = build_network(plan), [make_case(1), make_case(2)]
    scores = measure_cases(network, plan, cases)
    assert scores.dice == evaluate_cases(network, plan, cases)
    assert scores.tolerance_mm == 2.0
    for values in (scores.hd95_mm, scores.surface_dice):
        assert values.keys() == {"mean", *LABELS}
    assert all(0 <= value <= 1 for value in scores.surface_dice.values())
