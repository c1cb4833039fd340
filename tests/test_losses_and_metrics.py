"""The loss against MONAI's, and Dice against hand-counted cases."""

import numpy as np
import torch
from monai.losses.dice import DiceCELoss

from dafne_dante.training.losses import dice_cross_entropy
from dafne_dante.training.metrics import average_dice, dice_per_label


def test_the_loss_equals_monai_where_everything_is_known():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 5, 6), torch.randint(0, 3, (2, 4, 5, 6))
    oracle = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1e-5, smooth_dr=1e-5)
    expected = oracle(logits, target[:, None])
    assert torch.allclose(dice_cross_entropy(logits, target, torch.ones_like(target, dtype=torch.bool)), expected)


def test_unknown_voxels_teach_nothing():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 5, 6, requires_grad=True)
    target, known = torch.randint(0, 3, (1, 4, 5, 6)), torch.zeros(1, 4, 5, 6, dtype=torch.bool)
    known[:, :2] = True
    loss = dice_cross_entropy(logits, target, known)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, 2:].any()
    assert logits.grad[:, :, :2].any()
    other = target.clone()
    other[:, 2:] = 0
    assert torch.equal(dice_cross_entropy(logits, other, known), loss)


def test_dice_counts_annotated_slices_only():
    reference, prediction = np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 4), np.uint8)
    reference[..., :2], prediction[..., 1:] = 1, 1
    everything = dice_per_label(prediction, reference, np.ones(4, bool), ["a"])
    assert everything == {"a": 2 * 4 / (8 + 12)}
    assert dice_per_label(prediction, reference, np.array([False, True, False, False]), ["a"]) == {"a": 1.0}


def test_a_label_that_does_not_occur_says_nothing():
    empty = np.zeros((2, 2, 2), np.uint8)
    assert dice_per_label(empty, empty, np.ones(2, bool), ["a"]) == {"a": None}
    scores = [{"a": 0.5, "b": None}, {"a": 1.0, "b": None}]
    assert average_dice(scores, ["a", "b"]) == {"mean": 0.75, "a": 0.75, "b": None}
    assert average_dice([{"a": 0.0}], ["a"]) == {"mean": 0.0, "a": 0.0}
