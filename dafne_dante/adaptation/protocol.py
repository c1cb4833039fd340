"""What a method of fine-tuning is: what may move, when, and at which learning rate.

A training loop calls, in this order: `prepare` once; `look` once; before every epoch `network.train()` and then
`advance`; `parameter_groups` after `look` and whenever `advance` returned True; `factors` for the delta; `finish` last.

Invariants: parameters that may not move have `requires_grad` False and no gradient; each trainable parameter is in
exactly one group; a group's name stands for the same parameters for good, so that an optimiser can be given the groups
that it has not seen yet; vectors (norm affines, slopes, biases) and low-rank factors get no weight decay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.errors import TrainingError

__all__ = ["Method", "ParameterGroup", "check_pull", "dense_groups", "trainable_parameters"]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        name: unique among a method's groups.
        parameters: trainable ones, at least one.
        learning_rate_scale: factor on the run's learning rate.
        weight_decay: whether the run's weight decay applies.
        pull_to_start: how strongly each step draws the parameters back to where they began, in units of the learning
            rate (L2-SP, arXiv 1802.01483, decoupled as in AdamW); 0 for not at all.
        stiffness: of each parameter, in its shape, how much more or less than the others each number is drawn back;
            empty for all alike.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    learning_rate_scale: float = 1.0
    weight_decay: bool = True
    pull_to_start: float = 0.0
    stiffness: tuple[Tensor, ...] = ()


class Method(Protocol):
    """One way to fine-tune; the order of calls is in the module docstring. `example` is (B, C, *patch)."""

    @property
    def name(self) -> str:
        """As in METHOD_NAMES."""

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Set what may move before the first epoch; TrainingError where the network does not suit the method."""

    def look(self, network: nn.Module, losses: Callable[[], Sequence[Tensor]]) -> None:
        """See a few batches before the first epoch: `losses` gives their losses, with a graph; weights stay."""

    def advance(self, network: nn.Module, epoch: int, epochs: int, scores: Sequence[float] = ()) -> bool:
        """Set what may move in `epoch` (from 1) of `epochs`; True when the set of trainable parameters changed.

        `scores` are those of the epochs before (higher is better).
        """

    def parameter_groups(self, network: nn.Module) -> list[ParameterGroup]:
        """What is trainable now."""

    def describe(self, network: nn.Module) -> str:
        """What moves now, in words and shares, for a person."""

    def factors(self, network: nn.Module) -> dict[str, LowRank]:
        """Weight name to low-rank update, copies on the CPU; empty where updates are dense."""

    def finish(self, network: nn.Module) -> None:
        """Fold everything into plain weights and let all of them move again, as in a network just built."""


def check_pull(pull_to_start: float) -> None:
    """TrainingError where the pull of a method is negative or no number."""
    if not pull_to_start >= 0:
        raise TrainingError(f"expected a pull to the start from 0, found {pull_to_start}")


def trainable_parameters(network: nn.Module) -> int:
    """How many numbers may move now."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def dense_groups(
    prefix: str, parameters: Sequence[nn.Parameter], *, learning_rate_scale: float = 1.0, pull_to_start: float = 0.0
) -> list[ParameterGroup]:
    """Up to two groups: weights, which decay, and vectors, which do not (a norm's scale has no reason to shrink)."""
    weights = tuple(parameter for parameter in parameters if parameter.dim() > 1)
    vectors = tuple(parameter for parameter in parameters if parameter.dim() <= 1)
    groups = [
        ParameterGroup(f"{prefix}weights", weights, learning_rate_scale, pull_to_start=pull_to_start),
        ParameterGroup(f"{prefix}vectors", vectors, learning_rate_scale, False, pull_to_start),
    ]
    return [group for group in groups if group.parameters]
