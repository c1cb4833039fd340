"""Slices that nobody labelled: they change nothing that is learnt or measured, wherever a case passes through.

The proof by training that this matters is in test_partial_training.
"""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from limbs import EVERY_FIFTH, LABELS, SLICES, limb_plan, make_limb, partly

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.method import method_named
from dafne_dante.annotations.holdout import hold_out
from dafne_dante.models.build import build_network
from dafne_dante.models.global_model import digest_weights
from dafne_dante.models.preprocess import prepare_image, prepare_known, prepare_segmentation
from dafne_dante.plugin.gate import decide_gate
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.held_out import HeldOutWindows
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.losses import dice_cross_entropy
from dafne_dante.training.metrics import dice_from_counts, dice_per_label, overlap_counts
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.sampling import PatchSampler

DIMENSIONS = (2, 3)
EDGES = np.isin(np.arange(SLICES), (0, 1, SLICES - 1))
SPACINGS = (0.7, 1.0, 1.9, 2.0, 2.6, 4.0, 7.3, 20.0)


def falsified(case):
    """The same case with nonsense on every slice that nobody labelled."""
    nonsense = np.random.default_rng(5).integers(0, 3, case.shape).astype(np.uint8)
    return dataclasses.replace(case, segmentation=np.where(case.annotated, case.segmentation, nonsense))


def numbered_slices(annotated):
    """A case whose label in slice z is z + 1, so that a label tells which slice it came from."""
    labels = tuple(f"slice {number}" for number in range(SLICES))
    segmentation = np.broadcast_to(np.arange(1, SLICES + 1, dtype=np.uint8), (6, 6, SLICES)).copy()
    image = np.full((1, 6, 6, SLICES), 100, np.float32)
    case = make_limb(0)
    return dataclasses.replace(case, image=image, segmentation=segmentation, annotated=annotated, labels=labels)


def random_batch(seed, shape=(2, 3, 6, 5, 4)):
    """Logits, target and what is known, of which at least one voxel."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator)
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    known = torch.rand(target.shape, generator=generator) < 0.3
    known.view(-1)[0] = True
    return logits, target, known


def loss_and_gradient(logits, target, known):
    logits = logits.clone().requires_grad_()
    loss = dice_cross_entropy(logits, target, known)
    loss.backward()
    return loss.detach(), logits.grad


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), flat=st.booleans())
def test_what_is_written_at_unknown_voxels_changes_neither_loss_nor_gradient(seed, flat):
    logits, target, known = random_batch(seed, (2, 3, 6, 5) if flat else (2, 3, 6, 5, 4))
    other = torch.where(known, target, (target + 1) % 3)
    for one, two in zip(loss_and_gradient(logits, target, known), loss_and_gradient(logits, other, known), strict=True):
        assert torch.equal(one, two), "bit for bit"


@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_the_loss_is_that_of_the_labelled_slices_alone(dimensions):
    """Cut the labelled slices out of the patch: the loss on what remains is the same, and so is its gradient."""
    logits, target, _ = random_batch(1, (2, 3, 6, 5, 4)[: 2 + dimensions])
    slices = torch.tensor([False, True, True, False, True, False])
    known = slices.reshape(1, 6, *[1] * (dimensions - 1)).expand(target.shape)
    loss, gradient = loss_and_gradient(logits, target, known)
    alone, its_gradient = loss_and_gradient(logits[:, :, slices], target[:, slices], known[:, slices])
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(gradient[:, :, slices], its_gradient)
    assert not gradient[:, :, ~slices].any()


@pytest.mark.parametrize("dimensions", DIMENSIONS)
@pytest.mark.parametrize("spacing_mm", [1.3, 2.0, 5.0])
@pytest.mark.parametrize("annotated", [EVERY_FIFTH, EDGES], ids=["every fifth", "edges"])
def test_patches_are_the_same_bit_for_bit_and_each_holds_a_known_voxel(dimensions, spacing_mm, annotated):
    plan = dataclasses.replace(limb_plan(dimensions, spacing_mm=spacing_mm), patch=(6, 16, 16)[3 - dimensions :])
    case = partly(make_limb(1), annotated)
    truth, false = (PatchSampler(prepare_cases([one], plan), plan, seed=0) for one in (case, falsified(case)))
    for _ in range(15):
        one, other = truth.draw(3), false.draw(3)
        for name in ("image", "target", "known"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert one.known.flatten(1).any(dim=1).all()
        assert not one.target[~one.known].any()


def test_half_of_the_patches_have_a_known_labelled_voxel_at_their_centre():
    plan = dataclasses.replace(limb_plan(3), patch=(3, 3, 3))
    case = dataclasses.replace(make_limb(2), annotated=EVERY_FIFTH)
    sampler = PatchSampler(prepare_cases([case], plan), plan, seed=0)
    batches = [sampler.draw(20) for _ in range(10)]
    labelled = torch.cat([batch.known[:, 1, 1, 1] & (batch.target[:, 1, 1, 1] > 0) for batch in batches])
    assert 0.45 < labelled.float().mean() < 0.7
    slices = torch.cat([batch.known.any(dim=(2, 3)).float().mean(dim=0)[None] for batch in batches]).mean(dim=0)
    assert (slices > 0.1).all(), "a labelled slice lies anywhere in a patch, not at its centre only"


@pytest.mark.parametrize("first, last", [(0, 1), (SLICES - 1, SLICES), (0, 3), (17, 18)])
def test_a_single_run_of_labelled_slices_is_met_wherever_it_lies(first, last):
    annotated = (np.arange(SLICES) >= first) & (np.arange(SLICES) < last)
    plan = dataclasses.replace(limb_plan(3), patch=(6, 16, 16))
    sampler = PatchSampler(prepare_cases([partly(make_limb(3), annotated)], plan), plan, seed=0)
    known = torch.cat([sampler.draw(4).known for _ in range(10)])
    assert known.any(dim=(2, 3)).sum(dim=1).min() >= 1
    assert known.any(dim=(2, 3)).sum(dim=1).max() == last - first


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("annotated", [EVERY_FIFTH, EDGES, np.arange(SLICES) == 31], ids=["fifth", "edges", "one"])
def test_known_slices_hold_labels_of_annotated_slices_and_none_is_lost(spacing_mm, annotated):
    case = numbered_slices(annotated)
    plan = dataclasses.replace(limb_plan(3, spacing_mm=spacing_mm), labels=case.labels)
    record = prepare_image(case.image, case.spacing_mm, plan).record
    known = prepare_known(annotated, record)
    target = prepare_segmentation(case.segmentation, record, annotated)
    assert known.shape == target.shape[:1] == record.shape[:1]
    assert (target == target[:, :1, :1]).all()
    sources = target[:, 0, 0].astype(int) - 1
    assert np.array_equal(known, annotated[sources]), "a slice is known exactly where its labels were drawn"
    thickness = SLICES / len(sources)
    centres = (np.arange(len(sources)) + 0.5) * thickness - 0.5
    assert (np.abs(sources - centres) <= max(thickness, 1) / 2 + 1e-9).all(), "labels come from the slice's own place"
    slots = np.minimum(np.floor((np.flatnonzero(annotated) + 0.5) / thickness).astype(int), len(sources) - 1)
    assert known[slots].all(), "the prepared slice around an annotated one is known"


def test_of_two_labelled_slices_in_a_thick_one_the_nearer_to_its_centre_counts():
    annotated = np.isin(np.arange(SLICES), (20, 23, 29))
    case = numbered_slices(annotated)
    plan = dataclasses.replace(limb_plan(3, spacing_mm=20.0), labels=case.labels)
    record = prepare_image(case.image, case.spacing_mm, plan).record
    assert np.flatnonzero(prepare_known(annotated, record)).tolist() == [2]
    assert (prepare_segmentation(case.segmentation, record, annotated)[2] == 23 + 1).all()


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_a_case_labelled_throughout_is_prepared_as_stock_clients_do(spacing_mm):
    case = make_limb(4)
    record = prepare_image(case.image, case.spacing_mm, limb_plan(3, spacing_mm=spacing_mm)).record
    stock = prepare_segmentation(case.segmentation, record)
    assert np.array_equal(prepare_segmentation(case.segmentation, record, case.annotated), stock)
    assert prepare_known(case.annotated, record).all()


def test_a_2d_network_sees_the_labelled_slices_only():
    case = partly(make_limb(5), EVERY_FIFTH)
    prepared = prepare_cases([case], limb_plan(2))
    assert len(prepared) == 12
    for one, index in zip(prepared, np.flatnonzero(EVERY_FIFTH), strict=True):
        assert one.known_voxels.all()
        assert np.array_equal(one.target, prepare_segmentation(case.segmentation[..., index], one.prepared.record))


@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_training_and_measuring_do_not_depend_on_unknown_slices(dimensions):
    case, plan = partly(make_limb(6), EVERY_FIFTH), limb_plan(dimensions)
    results = []
    for one in (case, falsified(case)):
        torch.manual_seed(0)
        network = build_network(plan)
        prepared = prepare_cases([one], plan)
        recipe = Recipe(epochs=1, steps_per_epoch=3, learning_rate=1e-2)
        history = fit(network, plan, method_named("full"), prepared, prepared, recipe=recipe).history
        dice = evaluate_cases(network, plan, [one])
        results.append((digest_weights(plain_weights(network)), history[0].train_loss, history[0].val_loss,
                        history[0].dice, HeldOutWindows(prepared, plan).measure(network), dice))  # fmt: skip
    assert results[0] == results[1]


def test_dice_equals_a_count_by_hand_and_ignores_unknown_slices():
    random = np.random.default_rng(0)
    prediction, reference = random.integers(0, 3, (2, 7, 8, SLICES)).astype(np.uint8)
    scores = dice_per_label(prediction, reference, EVERY_FIFTH, LABELS)
    seen, true = prediction[..., EVERY_FIFTH], reference[..., EVERY_FIFTH]
    for value, name in enumerate(LABELS, start=1):
        both = ((seen == value) & (true == value)).sum()
        assert scores[name] == 2 * both / ((seen == value).sum() + (true == value).sum())
    prediction[..., ~EVERY_FIFTH], reference[..., ~EVERY_FIFTH] = 1, 2
    assert dice_per_label(prediction, reference, EVERY_FIFTH, LABELS) == scores


def test_a_label_that_no_annotated_slice_shows_says_nothing_whatever_is_predicted():
    reference = np.zeros((4, 4, 6), np.uint8)
    reference[..., 1], reference[..., 5] = 1, 2
    annotated = np.array([1, 1, 1, 0, 0, 0], bool)
    for predicted in (0, 1, 2):
        scores = dice_per_label(np.full_like(reference, predicted), reference, annotated, LABELS)
        assert scores == {"extensor": 2 * 16 / (48 + 16) if predicted == 1 else 0.0, "flexor": None}


def test_slices_of_one_case_count_together_as_a_volume_does():
    """One wrong voxel on a slice without the label must not cost as much as a label that was missed."""
    random = np.random.default_rng(1)
    prediction, reference = random.integers(0, 3, (2, 5, 5, 8)).astype(np.uint8)
    known = np.array(True)
    counts = sum(overlap_counts(prediction[..., z], reference[..., z], known, LABELS) for z in range(8))
    assert dice_from_counts(counts, LABELS) == dice_per_label(prediction, reference, np.ones(8, bool), LABELS)
    plan = limb_plan(2)
    torch.manual_seed(0)
    network = build_network(plan)
    cases = [partly(make_limb(seed), EVERY_FIFTH) for seed in (7, 8)]
    _, dice = HeldOutWindows(prepare_cases(cases, plan), plan).measure(network)
    assert dice == pytest.approx(evaluate_cases(network, plan, cases), abs=1e-9), "no resampling: both are one grid"


def test_a_case_whose_labelled_slices_show_no_tissue_counts_nowhere():
    """Stock preprocessing crops to tissue; what was labelled outside is out of the network's sight."""
    case = make_limb(9)
    image = case.image.copy()
    image[..., :10] = 0
    empty = partly(dataclasses.replace(case, image=image, case_id="empty"), np.arange(SLICES) < 5)
    plan = limb_plan(3)
    torch.manual_seed(0)
    network = build_network(plan)
    sound = partly(make_limb(10), EVERY_FIFTH)
    alone, both, none = (
        HeldOutWindows(prepare_cases(cases, plan), plan).measure(network)
        for cases in ([sound], [sound, empty], [empty])
    )
    assert both == alone
    assert none == (None, dict.fromkeys(["mean", *LABELS]))
    sampler = PatchSampler(prepare_cases([sound, empty], plan), plan, seed=0)
    assert all(sampler.draw(1).known.any() for _ in range(4))


def test_who_is_held_out_does_not_depend_on_what_was_labelled():
    cases = [make_limb(seed) for seed in range(5)]
    fewer = [partly(case, np.roll(EVERY_FIFTH, seed)) for seed, case in enumerate(cases)]
    chosen = [[[case.case_id for case in side] for side in hold_out(some, seed=3)] for some in (cases, fewer)]
    assert chosen[0] == chosen[1]


def test_the_gate_compares_the_same_labels_before_and_after():
    """A base that sees a muscle where a person saw none: to stop doing so is no fall, to begin is no rise."""
    case = partly(make_limb(11), EVERY_FIFTH)
    case = dataclasses.replace(case, segmentation=np.where(case.segmentation == 1, 1, 0).astype(np.uint8))
    good = case.segmentation
    with_false_flexor = np.where((good == 0) & (case.image[0] > 240), 2, good).astype(np.uint8)
    scores = [
        {**dice, "mean": dice["extensor"]}
        for one in (with_false_flexor, good)
        if (dice := dice_per_label(one, case.segmentation, case.annotated, LABELS))
    ]
    assert scores[0] == scores[1] == {"extensor": 1.0, "flexor": None, "mean": 1.0}
    for before, after in (scores, scores[::-1]):
        assert decide_gate(before, after, margin=0.02).passed
