"""How to train: one frozen set of choices, and the learning rate that follows from it."""

import math
from dataclasses import dataclass, field
from typing import Literal

from dafne_dante.errors import TrainingError
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.hardware import Numerics

__all__ = ["Recipe", "rate_factor"]

_FINAL_RATE = 0.02
_POWER = 0.9


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        learning_rate: of AdamW, before each group's own factor; linear warm-up, then the schedule.
        schedule: cosine to 2 % of the rate, or (1 - progress)^0.9 as in nnU-Net.
        warmup_steps, warmup_share: steps in which the rate rises, at most, in a short training so many of its steps.
        clip_norm: the largest L2 norm of a step's gradient.
        augmentation: how strongly each part of `augmentation` changes the batches.
        average_decay: of a running mean of the weights, which is measured beside them and kept where it does better;
            0 for none.
        last_epoch: the epoch that training ends with, and whose weights remain, whatever the schedule was made for; 0
            for all epochs and the best of them.
        patience: epochs without a better one after which training stops; 0 for never.
        deep_supervision: whether a DynUNet also learns from outputs at half and quarter resolution.

    Raises:
        TrainingError: a value is out of its range.
    """

    epochs: int = 20
    steps_per_epoch: int = 20
    batch_size: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 10
    warmup_share: float = 0.05
    schedule: Literal["cosine", "poly"] = "cosine"
    clip_norm: float = 1.0
    augmentation: Strengths = field(default_factory=Strengths)
    average_decay: float = 0.0
    patience: int = 0
    last_epoch: int = 0
    deep_supervision: bool = False
    seed: int = 0
    numerics: Numerics = field(default_factory=Numerics)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.steps_per_epoch < 1 or self.batch_size < 1:
            raise TrainingError(
                f"expected at least one epoch, step and patch, found {self.epochs} epochs of "
                f"{self.steps_per_epoch} steps of {self.batch_size} patches"
            )
        if not 0 <= self.average_decay < 1:
            raise TrainingError(f"expected a decay of the average from 0 to below 1, found {self.average_decay:g}")
        if not 0 <= self.last_epoch <= self.epochs:
            raise TrainingError(f"expected a last epoch from 0 to {self.epochs}, found {self.last_epoch}")
        if self.patience < 0:
            raise TrainingError(f"expected a patience from 0, found {self.patience}")
        if self.schedule not in ("cosine", "poly"):
            raise TrainingError(f"expected the schedule cosine or poly, found {self.schedule}")


def rate_factor(step: int, recipe: Recipe, *, steps_before: int = 0) -> float:
    """What the learning rate is multiplied by: linear warm-up, then the schedule; `step` counts from 1.

    What moves only since `steps_before` steps warms up from there.
    """
    warming = _warming_steps(recipe)
    warm = min(1.0, (step - steps_before) / warming) if warming else 1.0
    return warm * _scheduled(step, recipe, warming)


def _warming_steps(recipe: Recipe) -> int:
    return min(recipe.warmup_steps, math.ceil(recipe.warmup_share * recipe.epochs * recipe.steps_per_epoch))


def _scheduled(step: int, recipe: Recipe, warming: int) -> float:
    if step <= warming:
        return 1.0
    total = max(1, recipe.epochs * recipe.steps_per_epoch - warming)
    progress = min(1.0, (step - warming) / total)
    if recipe.schedule == "poly":
        return float((1 - progress) ** _POWER)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
