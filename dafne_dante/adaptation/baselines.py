"""What else a person could do: train from nothing, or let everything, the head alone, or the norms alone move.

The baselines that LoRA and gradual unfreezing have to beat (SCIENCE.md sections 3 and 8), as methods like any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from monai.networks.nets.dynunet import DynUNet
from torch import Tensor, nn

from dafne_dante.adaptation.fisher import fisher_diagonal
from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.adaptation.protocol import ParameterGroup, check_pull, dense_groups, trainable_parameters
from dafne_dante.adaptation.stages import output_head
from dafne_dante.errors import TrainingError

__all__ = ["FromScratch", "FullFineTuning", "HeadOnly", "NormOnly"]


class _Dense:
    """What all baselines share: the set of trainable parameters stays as `prepare` left it, and updates are dense."""

    def look(self, network: nn.Module, losses: Callable[[], Sequence[Tensor]]) -> None:
        """Nothing to see."""

    def advance(self, network: nn.Module, epoch: int, epochs: int, scores: Sequence[float] = ()) -> bool:
        """Nothing changes from epoch to epoch."""
        return False

    def parameter_groups(self, network: nn.Module) -> list[ParameterGroup]:
        """Weights and vectors."""
        return dense_groups("", [parameter for parameter in network.parameters() if parameter.requires_grad])

    def describe(self, network: nn.Module) -> str:
        """The share of the parameters."""
        everything = sum(parameter.numel() for parameter in network.parameters())
        moving = trainable_parameters(network)
        return f"{moving:,} of {everything:,} parameters move ({moving / everything:.1%})"

    def factors(self, network: nn.Module) -> dict[str, LowRank]:
        """None: updates are dense."""
        return {}

    def finish(self, network: nn.Module) -> None:
        """Release everything."""
        network.requires_grad_(True)


@dataclass(frozen=True)
class FullFineTuning(_Dense):
    """Everything moves from the first epoch; also how a network that was just built is trained.

    Attributes:
        pull_to_start: see ParameterGroup.
        elastic: the pull is in proportion to how much each number matters for what the network is shown by `look`: the
            diagonal of the Fisher information there (elastic weight consolidation, arXiv 1612.00796). It lives in this
            object only, so that it never leaves the site.

    Raises:
        TrainingError: the pull is negative.
    """

    pull_to_start: float = 0.0
    elastic: bool = False
    name: Literal["full"] = field(default="full", init=False)
    _stiffness: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_pull(self.pull_to_start)

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Release everything."""
        network.requires_grad_(True)

    def look(self, network: nn.Module, losses: Callable[[], Sequence[Tensor]]) -> None:
        """Learn what matters, where the pull is elastic."""
        if self.elastic and self.pull_to_start:
            parameters = list(network.parameters())
            found = fisher_diagonal(parameters, losses())
            self._stiffness.update({id(one): value for one, value in zip(parameters, found, strict=True)})

    def parameter_groups(self, network: nn.Module) -> list[ParameterGroup]:
        """Weights and vectors, pulled to where they began."""
        moving = [parameter for parameter in network.parameters() if parameter.requires_grad]
        groups = dense_groups("", moving, pull_to_start=self.pull_to_start)
        if not self._stiffness:
            return groups
        return [
            replace(group, stiffness=tuple(self._stiffness[id(parameter)] for parameter in group.parameters))
            for group in groups
        ]


@dataclass(frozen=True)
class FromScratch(_Dense):
    """The base is forgotten: every weight is drawn anew, from torch's generator, and everything moves."""

    name: Literal["scratch"] = field(default="scratch", init=False)

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Draw all weights as a network that was just built has them, and release everything."""
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        for module in network.modules():
            if isinstance(module, DynUNet):
                module.apply(module.initialize_weights)
        network.requires_grad_(True)


@dataclass(frozen=True)
class HeadOnly(_Dense):
    """The layer that makes the output moves, nothing else."""

    name: Literal["head"] = field(default="head", init=False)

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Freeze all but the head; TrainingError where no layer makes the output."""
        head = output_head(network, example)
        if head is None:
            raise TrainingError("expected a network whose last layer makes its output, found none; use another method")
        network.requires_grad_(False)
        network.get_submodule(head).requires_grad_(True)


@dataclass(frozen=True)
class NormOnly(_Dense):
    """Norm affines, slopes of activations and biases move: every vector, no matrix."""

    name: Literal["norm"] = field(default="norm", init=False)

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Freeze all but vectors; TrainingError where there is none."""
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.dim() <= 1)
        if not trainable_parameters(network):
            raise TrainingError("expected a network with norms, slopes or biases, found none; use another method")
