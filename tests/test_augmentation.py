"""Changes to training batches: what they do to known inputs, that they are drawn as promised, and what they leave."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import make_case, tiny_plan
from scipy import ndimage

from dafne_dante.training.augmentation import Strengths, apply_changes, draw_changes
from dafne_dante.training.intensity import apply_intensity, draw_intensity
from dafne_dante.training.mirroring import has_side, mirror_axes
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.sampling import Batch
from dafne_dante.training.scanner_effects import ScannerDraw, apply_scanner, draw_scanner
from dafne_dante.training.spatial import SpatialDraw, apply_spatial, draw_spatial

PLAN = tiny_plan()
FLAT = replace(PLAN, architecture="unet2d", patch=(16, 16), spacing_mm=(1.0, 1.0), median_shape=(16, 16))
THICK = replace(PLAN, spacing_mm=(3.0, 1.0, 1.0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_batch(plan, samples=2, seed=0):
    torch.manual_seed(seed)
    shape = (samples, *plan.patch)
    known = torch.ones(shape, dtype=torch.bool)
    known[:, :2] = False
    return Batch(torch.randn(samples, 1, *plan.patch), torch.randint(0, 3, shape) * known, known)


def turned(matrix, samples=2):
    return SpatialDraw(((),) * samples, matrix.float().expand(samples, -1, -1), tuple(range(samples)))


@pytest.mark.parametrize("plan", [PLAN, FLAT], ids=["3D", "2D"])
def test_a_quarter_turn_moves_image_target_and_known_alike(plan):
    batch = make_batch(plan)
    axes = len(plan.patch)
    matrix = torch.eye(axes)
    matrix[-2:, -2:] = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    found = apply_spatial(batch, turned(matrix))
    for before, after in zip(
        (batch.image, batch.target, batch.known), (found.image, found.target, found.known), strict=True
    ):
        assert after.dtype == before.dtype
        assert torch.allclose(after.float(), torch.rot90(before.float(), 1, (-2, -1)), atol=1e-4)


@pytest.mark.parametrize("plan", [PLAN, FLAT, THICK], ids=["3D", "2D", "thick slices"])
def test_any_turn_equals_scipys(plan):
    draw = draw_spatial(8, plan, 1.0, generator(3))
    assert draw.moved
    batch = make_batch(plan, samples=8)
    found = apply_spatial(batch, draw)
    centre = (np.array(plan.patch) - 1) / 2
    for index in range(8):
        matrix = draw.matrix[index].numpy().astype(np.float64)
        offset = centre - matrix @ centre
        expected = ndimage.affine_transform(
            batch.image[index, 0].numpy(), matrix, offset, order=1, mode="grid-constant"
        )
        assert np.allclose(found.image[index, 0].numpy(), expected, atol=1e-3)
        labels = np.where(batch.known[index], batch.target[index] + 1, 0)
        nearest = ndimage.affine_transform(labels, matrix, offset, order=0, mode="grid-constant")
        code = torch.where(found.known[index], found.target[index] + 1, 0).numpy()
        assert (code == nearest).mean() > 0.999, "but for ties between two voxels"


def test_what_comes_from_outside_is_zero_and_unknown():
    batch = make_batch(PLAN)
    found = apply_spatial(replace(batch, known=torch.ones_like(batch.known)), turned(2 * torch.eye(3)))
    assert found.known.sum() == found.known.numel() / 8
    assert not found.image[:, :, 0].any()
    assert not found.target[~found.known].any()


@pytest.mark.parametrize("plan", [PLAN, replace(PLAN, spacing_mm=(2.5, 1.0, 1.5)), FLAT, THICK])
def test_turns_are_rotations_in_millimetres(plan):
    draw = draw_spatial(400, plan, 1.0, generator(1))
    spacing = torch.tensor(plan.spacing_mm)
    physical = draw.matrix * spacing[:, None] / spacing
    product = physical @ physical.transpose(1, 2)
    factor = product.diagonal(dim1=1, dim2=2).mean(dim=1)
    assert torch.allclose(product, factor[:, None, None] * torch.eye(len(spacing)), atol=1e-5)
    zoom = factor.rsqrt()
    assert zoom.min() >= math.exp(-0.351)
    assert zoom.max() <= math.exp(0.351)
    still = [index for index in range(400) if index not in draw.moved]
    assert torch.allclose(draw.matrix[still], torch.eye(len(spacing)).expand(len(still), -1, -1))
    assert 0.25 < len(draw.moved) / 400 < 0.47, "turned or scaled: 1 - 0.8 * 0.8"
    if plan is THICK:
        assert not draw.matrix[:, 0, 1:].any()
        assert not draw.matrix[:, 1:, 0].any()


def test_mirrors_are_exact_by_half_and_on_allowed_axes_only():
    batch = make_batch(PLAN, samples=64)
    draw = draw_spatial(64, PLAN, 0.0, generator(), mirror_axes=(0, 2))
    assert draw.moved == ()
    assert {axis for chosen in draw.mirrored for axis in chosen} == {0, 2}
    assert 16 < sum(0 in chosen for chosen in draw.mirrored) < 48
    found = apply_spatial(batch, draw)
    for index, chosen in enumerate(draw.mirrored):
        assert torch.equal(found.image[index, 0], batch.image[index, 0].flip(chosen))
        assert torch.equal(found.target[index], batch.target[index].flip(chosen))
        assert torch.equal(found.known[index], batch.known[index].flip(chosen))


@pytest.mark.parametrize("name", ["Left kidney", "kidney_r", "VL_R", "femurLeft", "hippocampus (l)", "rechts", "TA.L"])
def test_names_with_a_side(name):
    assert has_side(name)


@pytest.mark.parametrize("name", ["liver", "VL", "rectus", "lobe", "spleen", "ball", "grey matter", "L4x"])
def test_names_without_a_side(name):
    assert has_side(name) is (name == "L4x"), "a lone L beside a number costs no more than a mirror"


def test_sides_are_not_swapped():
    sided = replace(PLAN, labels=("ball", "left box"))
    upright = make_case(1)
    relabelled = replace(upright, labels=sided.labels)
    sagittal = np.array([[0, 0, 2.0, 0], [2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1.0]])
    turned_case = replace(relabelled, affine=sagittal)
    assert mirror_axes(PLAN, prepare_cases([upright], PLAN)) == (0, 1, 2)
    assert mirror_axes(sided, prepare_cases([relabelled], sided)) == (0, 2)
    assert mirror_axes(sided, prepare_cases([turned_case], sided)) == (1, 2)
    assert mirror_axes(sided, prepare_cases([relabelled, turned_case], sided)) == (2,)
    flat = replace(FLAT, labels=sided.labels, spacing_mm=(2.0, 2.0))
    assert mirror_axes(flat, prepare_cases([relabelled], flat)) == (1,)
    assert mirror_axes(flat, prepare_cases([turned_case], flat)) == (0, 1)
    cos, sin = 2 * math.cos(0.7), 2 * math.sin(0.7)
    oblique = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1.0]])
    assert mirror_axes(sided, prepare_cases([replace(relabelled, affine=oblique)], sided)) == (0,)


@pytest.mark.parametrize("plan", [PLAN, FLAT], ids=["3D", "2D"])
def test_scanner_effects_touch_drawn_samples_and_tissue_only(plan):
    axes = len(plan.patch)
    image = make_batch(plan, samples=32).image
    image[:, :, :3] = 0
    draw = draw_scanner(32, axes, 1.0, generator(5))
    assert draw.log_bias
    assert draw.sigma
    assert draw.factors
    found = apply_scanner(image, draw)
    chosen = {*draw.log_bias, *draw.sigma, *draw.factors}
    for index in range(32):
        assert torch.equal(found[index], image[index]) is (index not in chosen)
    assert not found[:, :, :3].any()
    assert torch.isfinite(found).all()


def test_each_scanner_effect_does_what_its_name_says():
    image = make_batch(PLAN, samples=1).image
    blurred = apply_scanner(image, ScannerDraw({}, {0: 1.0}, {}))
    smooth = torch.from_numpy(ndimage.gaussian_filter(image[0, 0].numpy(), 1.0, mode="nearest", truncate=2.0))
    assert torch.allclose(blurred[0, 0], smooth, atol=1e-5)
    coarse = apply_scanner(image, ScannerDraw({}, {}, {0: (2.0, 1.0, 1.0)}))
    assert coarse.var() < image.var()
    assert torch.allclose(apply_scanner(image, ScannerDraw({}, {}, {0: (1.0, 1.0, 1.0)})), image, atol=1e-6)
    even = ScannerDraw({0: torch.full((1, 1, 4, 4, 4), 0.3)}, {}, {})
    low = image.amin()
    assert torch.allclose(apply_scanner(image, even), (image - low) * math.exp(0.3) + low, atol=1e-4)


def test_intensity_repeats_and_keeps_its_ranges():
    image = torch.randn(3, 1, 4, 5, 6)
    assert torch.allclose(apply_intensity(image, draw_intensity(3, 0.0, generator())), image, atol=1e-5)
    draw = draw_intensity(3, 1.0, generator(2))
    assert torch.equal(apply_intensity(image, draw), apply_intensity(image, draw))
    assert not torch.allclose(apply_intensity(image, draw), image, atol=0.1)
    draw = draw_intensity(1000, 1.0, generator(3))
    assert draw.gain.min() >= 0.75
    assert draw.gain.max() <= 1.25
    assert draw.shift.abs().max() <= 0.2
    assert 0.70 < draw.gamma.min() < draw.gamma.max() < 1.42
    assert 0 <= draw.noise.min() < draw.noise.max() <= 0.15
    image = torch.randn(2, 1, 6, 6, 6)
    image[:, :, :2] = 0
    changed = apply_intensity(image, draw_intensity(2, 1.0, generator()))
    assert not changed[:, :, :2].any()
    assert (changed[:, :, 2:] != image[:, :, 2:]).all()


@pytest.mark.parametrize("plan", [PLAN, FLAT, THICK], ids=["3D", "2D", "thick slices"])
def test_one_draw_gives_one_result_and_the_batch_is_left_alone(plan):
    batch = make_batch(plan, samples=8)
    before = [tensor.clone() for tensor in (batch.image, batch.target, batch.known)]
    results = []
    for _ in range(2):
        draw = draw_changes(8, plan, Strengths(1.0, 1.0, 1.0, True), generator(9), mirror_axes=(0, 1))
        results.append(apply_changes(batch, draw))
    assert torch.equal(results[0].image, results[1].image)
    assert torch.equal(results[0].target, results[1].target)
    assert all(torch.equal(*pair) for pair in zip(before, (batch.image, batch.target, batch.known), strict=True))
    assert not results[0].target[~results[0].known].any()


def test_some_batches_are_spared_all_but_intensities():
    source, plan = generator(1), PLAN
    strengths = Strengths(0.5, 0.5, 0.5, mirror=True, often=0.25)
    draws = [draw_changes(2, plan, strengths, source, mirror_axes=(0, 1)) for _ in range(400)]
    assert all(draw.intensity is not None for draw in draws)
    assert all((draw.spatial is None) == (draw.scanner is None) for draw in draws)
    assert 70 < sum(draw.spatial is not None for draw in draws) < 130
    never = draw_changes(2, plan, Strengths(0.5, 0.5, 0.5, often=0.0), source)
    assert never.spatial is never.scanner is None


def test_a_part_without_strength_draws_nothing():
    for strengths in (Strengths(0.0), Strengths(0.0, 0.0, 0.0, mirror=False)):
        source = generator(4)
        state = source.get_state()
        batch = make_batch(PLAN)
        assert apply_changes(batch, draw_changes(2, PLAN, strengths, source, mirror_axes=(0, 1, 2))) is batch
        assert torch.equal(source.get_state(), state)
    source, alone = generator(4), generator(4)
    draw = draw_changes(2, PLAN, Strengths(0.5), source)
    assert torch.equal(draw.intensity.gain, draw_intensity(2, 0.5, alone).gain)


def test_remapped_tissues_follow_the_line_through_the_knots():
    """Against numpy.interp; background stays, and so does a sample that was not chosen."""
    image = torch.randn(4, 1, 5, 6, 7, generator=generator(1))
    image[:, :, :2] = 0
    drawn = draw_intensity(4, 0.0, generator(2), remapped=1.0)
    draw = replace(drawn, remapped=torch.tensor([True, False, True, True]))
    changed = apply_intensity(image, draw)
    assert not changed[:, :, :2].any()
    assert torch.allclose(changed[1], image[1], atol=1e-5)
    for sample in (0, 2, 3):
        before, after = image[sample].numpy(), changed[sample][:, 2:].numpy()
        line = np.interp(before, np.linspace(before.min(), before.max(), 5), draw.knots[sample].numpy())[:, 2:]
        assert np.allclose(after, (line - line.mean()) / line.std(), atol=1e-4)
        assert abs(after.mean()) < 1e-4 and abs(after.std() - 1) < 1e-3


def test_so_many_samples_are_remapped_as_asked_and_a_part_of_a_batch_like_the_whole():
    drawn = draw_intensity(2000, 1.0, generator(3), remapped=0.15)
    assert 240 < int(drawn.remapped.sum()) < 360
    assert draw_intensity(2, 1.0, generator(3)).knots is None
    image = torch.randn(6, 1, 4, 4, 4, generator=generator(4))
    draw = draw_intensity(6, 1.0, generator(5), remapped=0.5)
    assert 0 < int(draw.remapped.sum()) < 6
    halves = [apply_intensity(image[part], draw.part(part.start, part.stop)) for part in (slice(0, 3), slice(3, 6))]
    assert torch.allclose(torch.cat(halves), apply_intensity(image, draw), atol=1e-6)


def test_an_even_sample_is_remapped_without_nonsense():
    image = torch.full((1, 1, 3, 3, 3), 2.0)
    changed = apply_intensity(image, draw_intensity(1, 0.0, generator(6), remapped=1.0))
    assert torch.isfinite(changed).all()
