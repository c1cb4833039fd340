"""Dice plus cross-entropy over the voxels that somebody labelled.

Terms: logits (B, 1 + labels, *patch); target (B, *patch) integer; known (B, *patch) bool. A voxel that is not known
counts in neither term, so a slice nobody looked at never teaches background.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["BatchShare", "dice_cross_entropy"]

_SMOOTH = 1e-5


@dataclass(frozen=True)
class BatchShare:
    """What a process has of a batch that several have parts of: then the mean of their losses is the batch's own.

    Attributes:
        parts: how many processes.
        samples: samples of this part, for each sample that a part has on average.
        add: the sum over the processes of a tensor; each process calls it equally often.
    """

    parts: int
    samples: float
    add: Callable[[Tensor], Tensor]


def dice_cross_entropy(logits: Tensor, target: Tensor, known: Tensor, share: BatchShare | None = None) -> Tensor:
    """Mean soft-Dice loss over foreground labels and the samples, plus mean cross-entropy; a float32 scalar.

    Both means are over the whole batch, of which this is a `share`, or all.

    With every voxel known this is MONAI's DiceCELoss(include_background=False, softmax=True, to_onehot_y=True). The
    Dice term is Milletari et al. 2016 (arXiv 1606.04797) without the squares in the denominator.
    """
    logits = logits.float()
    weight = known.to(logits.dtype)
    target = torch.where(known, target, 0).long()
    cross_entropy = functional.cross_entropy(logits, target, reduction="none")
    counted = weight.sum() if share is None else share.add(weight.sum())
    cross_entropy = (cross_entropy * weight).sum() / counted.clamp(min=1.0)
    probability = logits.softmax(dim=1)[:, 1:] * weight[:, None]
    truth = functional.one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:] * weight[:, None]
    axes = tuple(range(2, logits.dim()))
    overlap = (probability * truth).sum(axes)
    size = probability.sum(axes) + truth.sum(axes)
    dice = 1 - (2 * overlap + _SMOOTH) / (size + _SMOOTH)
    if share is not None:
        return torch.as_tensor(share.samples * dice.mean() + share.parts * cross_entropy)
    return torch.as_tensor(dice.mean() + cross_entropy)
