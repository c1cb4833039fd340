"""What a model did on each held-out case, kept small until the report is made.

Terms: a *measurement* is one case with one model: its Dice, and the prediction as compressed bytes (a segmentation of
128^3 voxels takes about 20 KB). A *held-out case* pairs those of the global and of the improved model.

Invariants: predictions come back bit by bit; the order is the one in which cases were measured, which is the same for
both models.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.training.metrics import average_dice
from dafne_dante.types import Segmentation

__all__ = ["HeldOutCase", "Measurement", "Measurements", "pair_measurements"]

Dice = Mapping[str, float | None]


@dataclass(frozen=True, eq=False)
class Measurement:
    """One model on one case; `dice` has "mean" and every label."""

    case: Case
    dice: Dice
    packed: bytes

    def prediction(self) -> Segmentation:
        """The segmentation (X, Y, Z) uint8 that the model gave."""
        return np.frombuffer(zlib.decompress(self.packed), dtype=np.uint8).reshape(self.case.shape)


@dataclass(eq=False)
class Measurements:
    """Collects what a model does, case by case."""

    items: list[Measurement] = field(default_factory=list)

    def take(self, case: Case, prediction: Segmentation, dice: Dice) -> None:
        """Keep one case; `dice` maps every label to its value or None."""
        packed = zlib.compress(np.asarray(prediction, dtype=np.uint8).tobytes(), 1)
        self.items.append(Measurement(case, average_dice([dice], case.labels), packed))


@dataclass(frozen=True, eq=False)
class HeldOutCase:
    """One case that a model was measured on without having learned from it; `name` says nothing about the patient."""

    name: str
    before: Measurement
    after: Measurement

    @property
    def case(self) -> Case:
        """The labelled study, of which `annotated` tells the slices that were measured."""
        return self.after.case


def pair_measurements(before: Sequence[Measurement], after: Sequence[Measurement]) -> tuple[HeldOutCase, ...]:
    """What both models did on the same cases, named by number; parts of one study are named as parts."""
    parts = len(after) > 1 and len({one.case.case_id for one in after}) == 1
    word = "Part" if parts else "Case"
    pairs = zip(before, after, strict=True)
    return tuple(HeldOutCase(f"{word} {number}", old, new) for number, (old, new) in enumerate(pairs, start=1))
