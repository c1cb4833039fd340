"""Gradual unfreezing: when stages are released, and what frozen means.

Terms: stages are released in an *order*, from the output back or as a probe of gradients has it (`gradual`); those
that are not released yet are *frozen*. Epochs count from 1. A *score* says how good an epoch was; higher is better.

Invariants
- Frozen is frozen: convolutions, norm affines, slopes and biases, and running statistics too. No autograd graph is
  built before the first stage that moves, skip connections of the U-Net included; norms left trainable there, as in
  dante-trainer, cost the backward pass of the whole encoder (0.93 of a full step instead of 0.78).
- A schedule is a pure function of epoch, epochs, the number of stages and the scores of the epochs before, and never
  freezes again what it released: a resumed training continues where it stopped.
- At least one stage always moves.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Protocol

from torch import nn

from dafne_dante.adaptation.stages import Stage
from dafne_dante.errors import TrainingError

__all__ = ["PaperSchedule", "PhasedSchedule", "Schedule", "release_only"]

_ROUNDING = 1e-9  # shares such as 1 - 0.7 must not lose a stage to binary fractions


class Schedule(Protocol):
    """When stages are released."""

    def initial(self, count: int) -> int:
        """How many of `count` stages are frozen before the first epoch."""

    def frozen(self, epoch: int, epochs: int, count: int, scores: Sequence[float] = ()) -> int:
        """How many of `count` stages are frozen in `epoch` (from 1) of `epochs`; never rises with epoch."""


@dataclass(frozen=True)
class PhasedSchedule:
    """A few phases, then everything but the lowest stages (SCIENCE section 4).

    A phase ends when its share of the epochs has passed, or before that on a plateau.

    Attributes:
        initial_frozen_share: of the stages, frozen in the first phase; 0.5 leaves bottleneck and decoder of a U-Net.
        phases: how many sets of trainable stages there are; 1 keeps the first set for good (plain layer freezing).
        kept_frozen_stages: how many stages, the last in the order, are never released.
        released_by_share_of_epochs: after this share of the epochs the last phase begins at the latest.
        plateau_epochs: a phase ends after so many epochs without a better one in it; 0 for never.

    Raises:
        TrainingError: a value is out of its range.
    """

    initial_frozen_share: float = 0.5
    phases: int = 3
    kept_frozen_stages: int = 1
    released_by_share_of_epochs: float = 0.5
    plateau_epochs: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.initial_frozen_share <= 1:
            raise TrainingError(f"expected an initial frozen share from 0 to 1, found {self.initial_frozen_share}")
        if self.phases < 1 or self.kept_frozen_stages < 0 or self.plateau_epochs < 0:
            raise TrainingError(
                f"expected at least 1 phase, 0 kept stages and 0 epochs of a plateau, "
                f"found {self.phases}, {self.kept_frozen_stages} and {self.plateau_epochs}"
            )
        if not 0 < self.released_by_share_of_epochs <= 1:
            raise TrainingError(
                f"expected stages to be released by a share of the epochs in (0, 1], "
                f"found {self.released_by_share_of_epochs}"
            )

    def initial(self, count: int) -> int:
        """How many of `count` stages are frozen in the first phase."""
        kept = min(self.kept_frozen_stages, count - 1)
        return max(kept, int(self.initial_frozen_share * (count - 1) + _ROUNDING))

    def frozen(self, epoch: int, epochs: int, count: int, scores: Sequence[float] = ()) -> int:
        """How many of `count` stages are frozen; falls in `phases` steps to the kept ones."""
        initial, kept = self.initial(count), min(self.kept_frozen_stages, count - 1)
        steps = self.phases - 1
        if steps == 0:
            return initial
        phase = self._phase(epoch, epochs, scores)
        return ceil(initial - (initial - kept) * phase / steps - _ROUNDING)

    def _phase(self, epoch: int, epochs: int, scores: Sequence[float]) -> int:
        """The phase, from 0, that `epoch` belongs to, found by walking through the epochs before it."""
        phase, best, waited = 0, -inf, 0
        for passed in range(1, epoch):
            due = int(passed / (self.released_by_share_of_epochs * epochs) * (self.phases - 1) + _ROUNDING)
            score = scores[passed - 1] if passed <= len(scores) else inf
            waited = 0 if score > best else waited + 1
            best = max(best, score) if score < inf else best
            plateau = 0 < self.plateau_epochs <= waited
            if due > phase or plateau:
                phase, best, waited = max(phase + 1, due), score if score < inf else -inf, 0
        return min(self.phases - 1, phase)


@dataclass(frozen=True)
class PaperSchedule:
    """Dante's own percentages and steps (dante-trainer 1.0.3b3; SCIENCE section 2.1), on stages or on modules.

    Every tenth of the epochs the trainable share is set to (1 - degree) + epoch / (0.75 epochs), up to 1.

    Attributes:
        degree: share of the stages that is frozen at first, from 0 to 1.

    Raises:
        TrainingError: the degree is out of its range.
    """

    degree: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.degree <= 1:
            raise TrainingError(f"expected a degree of freezing from 0 to 1, found {self.degree}")

    def trainable_share(self, epoch: int, epochs: int) -> float:
        """Share of the stages, 0 to 1, that moves in `epoch` (from 1) of `epochs`."""
        interval = max(1, int(0.1 * epochs))
        last_step = epoch - epoch % interval
        ramp = last_step / max(1, int(0.75 * epochs))
        return min(1.0, (1 - self.degree) + ramp)

    def initial(self, count: int) -> int:
        """How many of `count` stages are frozen before the first step."""
        return self._frozen(1 - self.degree, count)

    def frozen(self, epoch: int, epochs: int, count: int, scores: Sequence[float] = ()) -> int:
        """How many of `count` stages are frozen in `epoch` (from 1) of `epochs`; scores say nothing here."""
        return self._frozen(self.trainable_share(epoch, epochs), count)

    @staticmethod
    def _frozen(trainable_share: float, count: int) -> int:
        return min(count - 1, int(count * (1 - trainable_share) + _ROUNDING))


def release_only(network: nn.Module, stages: Sequence[Stage], moving: Collection[int]) -> bool:
    """Release the stages with the indices `moving` and freeze the others; True where the trainable set changed.

    Frozen modules go to evaluation mode, so that running statistics stay; released ones take the network's mode. A
    frozen parameter loses its gradient, so that no optimiser step can still move it. Call it after every
    `network.train()`, which puts all modules back into training mode.
    """
    changed = False
    parameters = dict(network.named_parameters())
    for index, stage in enumerate(stages):
        moves = index in moving
        for name in filter(None, stage.module_names):  # the network's own mode is the caller's
            network.get_submodule(name).training = moves and network.training
        for name in stage.parameter_names:
            parameter = parameters[name]
            changed |= parameter.requires_grad != moves
            parameter.requires_grad_(moves)
            if not moves:
                parameter.grad = None
    return changed
