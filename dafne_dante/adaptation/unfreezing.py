"""Gradual unfreezing: the input side stays fixed, deeper stages are released from the output back.

Terms: stages are counted in the order in which data runs through them; the *first trainable* stage and all after it
move, the ones before it, the *frozen prefix*, do not. Epochs count from 1.

Invariants
- Frozen is frozen: convolutions, norm affines, slopes and biases, and running statistics too. No autograd graph is
  built before the first trainable stage, skip connections of the U-Net included; norms left trainable there, as in
  dante-trainer, cost the backward pass of the whole encoder (0.93 of a full step instead of 0.78).
- A schedule is a pure function of epoch, epochs and the number of stages, and never freezes again what it released:
  a resumed training continues where it stopped.
- The stage next to the output always moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from torch import nn

from dafne_dante.adaptation.stages import Stage
from dafne_dante.errors import TrainingError

__all__ = ["PaperSchedule", "PhasedSchedule", "Schedule", "release_from"]

_ROUNDING = 1e-9  # shares such as 1 - 0.7 must not lose a stage to binary fractions


class Schedule(Protocol):
    """When stages are released."""

    def initial(self, count: int) -> int:
        """Index of the first trainable of `count` stages before the first epoch."""

    def first_trainable(self, epoch: int, epochs: int, count: int) -> int:
        """Index of the first trainable of `count` stages in `epoch` (from 1) of `epochs`; never rises with epoch."""


@dataclass(frozen=True)
class PhasedSchedule:
    """A few phases of equal length, then everything but the lowest stages (SCIENCE section 4).

    Attributes:
        initial_frozen_share: of the stages, frozen in the first phase; 0.5 leaves bottleneck and decoder of a U-Net.
        phases: how many sets of trainable stages there are; 1 keeps the first set for good (plain layer freezing).
        kept_frozen_stages: how many stages next to the input are never released.
        released_by_share_of_epochs: after this share of the epochs the last phase begins.

    Raises:
        TrainingError: a value is out of its range.
    """

    initial_frozen_share: float = 0.5
    phases: int = 3
    kept_frozen_stages: int = 1
    released_by_share_of_epochs: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.initial_frozen_share <= 1:
            raise TrainingError(f"expected an initial frozen share from 0 to 1, found {self.initial_frozen_share}")
        if self.phases < 1 or self.kept_frozen_stages < 0:
            raise TrainingError(
                f"expected at least 1 phase and 0 kept stages, found {self.phases} and {self.kept_frozen_stages}"
            )
        if not 0 < self.released_by_share_of_epochs <= 1:
            raise TrainingError(
                f"expected stages to be released by a share of the epochs in (0, 1], "
                f"found {self.released_by_share_of_epochs}"
            )

    def initial(self, count: int) -> int:
        """Index of the first trainable of `count` stages in the first phase."""
        kept = min(self.kept_frozen_stages, count - 1)
        return max(kept, int(self.initial_frozen_share * (count - 1) + _ROUNDING))

    def first_trainable(self, epoch: int, epochs: int, count: int) -> int:
        """Index of the first trainable of `count` stages; falls in `phases` steps to the kept ones."""
        initial, kept = self.initial(count), min(self.kept_frozen_stages, count - 1)
        steps = self.phases - 1
        if steps == 0:
            return initial
        passed = (epoch - 1) / (self.released_by_share_of_epochs * epochs)
        phase = min(steps, int(passed * steps + _ROUNDING))
        return ceil(initial - (initial - kept) * phase / steps - _ROUNDING)


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
        """Index of the first trainable of `count` stages before the first step."""
        return self._frozen(1 - self.degree, count)

    def first_trainable(self, epoch: int, epochs: int, count: int) -> int:
        """Index of the first trainable of `count` stages in `epoch` (from 1) of `epochs`."""
        return self._frozen(self.trainable_share(epoch, epochs), count)

    @staticmethod
    def _frozen(trainable_share: float, count: int) -> int:
        return min(count - 1, int(count * (1 - trainable_share) + _ROUNDING))


def release_from(network: nn.Module, stages: Sequence[Stage], first_trainable: int) -> bool:
    """Freeze the stages before `first_trainable` and release the others; True where the trainable set changed.

    Frozen modules go to evaluation mode, so that running statistics stay; released ones take the network's mode. A
    frozen parameter loses its gradient, so that no optimiser step can still move it. Call it after every
    `network.train()`, which puts all modules back into training mode.
    """
    changed = False
    parameters = dict(network.named_parameters())
    for index, stage in enumerate(stages):
        moves = index >= first_trainable
        for name in filter(None, stage.module_names):  # the network's own mode is the caller's
            network.get_submodule(name).training = moves and network.training
        for name in stage.parameter_names:
            parameter = parameters[name]
            changed |= parameter.requires_grad != moves
            parameter.requires_grad_(moves)
            if not moves:
                parameter.grad = None
    return changed
