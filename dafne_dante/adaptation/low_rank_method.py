"""LoRA as a method: low-rank updates of convolutions, dense training of the head and of everything small."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from dafne_dante.adaptation.layers import KINDS
from dafne_dante.adaptation.lora import attach_lora, fold_lora, lora_factors, lora_parameters
from dafne_dante.adaptation.low_rank import Form, LowRank
from dafne_dante.adaptation.protocol import ParameterGroup, check_pull, dense_groups, trainable_parameters
from dafne_dante.adaptation.stages import output_head

__all__ = ["LowRankAdaptation"]


@dataclass(frozen=True)
class LowRankAdaptation:
    """LoRA on convolutions and linear layers (SCIENCE section 3).

    Attributes:
        rank: at most; capped by each layer.
        form: of convolutions, `lora-shared` or the paper's `lora-channel`.
        scale: of the update, the same at every rank.
        b_learning_rate_scale: learning rate of B over that of A (LoRA+, arXiv 2402.12354).
        dropout: share of the ranks that a training step leaves out.
        kinds: which kinds of layers are adapted, of KINDS.
        layers: names of layers, with * and ?, that are adapted; the others keep their weight.
        pull_to_start: of the factors, towards no update, and of what trains densely; see ParameterGroup.

    Raises:
        TrainingError: the pull is negative.
    """

    rank: int = 8
    form: Form = "lora-shared"
    scale: float = 2.0
    b_learning_rate_scale: float = 1.0
    dropout: float = 0.0
    kinds: tuple[str, ...] = KINDS
    layers: tuple[str, ...] = ("*",)
    pull_to_start: float = 0.0
    name: Literal["lora"] = field(default="lora", init=False)

    def __post_init__(self) -> None:
        check_pull(self.pull_to_start)

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Attach LoRA; the layer that makes the output trains densely."""
        head = output_head(network, example)
        attach_lora(
            network,
            rank=self.rank,
            form=self.form,
            scale=self.scale,
            dropout=self.dropout,
            kinds=self.kinds,
            layers=self.layers,
            dense_layers=() if head is None else (head,),
        )

    def look(self, network: nn.Module, losses: Callable[[], Sequence[Tensor]]) -> None:
        """Nothing to see."""

    def advance(self, network: nn.Module, epoch: int, epochs: int, scores: Sequence[float] = ()) -> bool:
        """Nothing changes from epoch to epoch."""
        return False

    def parameter_groups(self, network: nn.Module) -> list[ParameterGroup]:
        """Factors A, factors B, dense weights, vectors."""
        a_factors, b_factors = lora_parameters(network)
        taken = {id(parameter) for parameter in (*a_factors, *b_factors)}
        others = [p for p in network.parameters() if p.requires_grad and id(p) not in taken]
        pull = self.pull_to_start
        groups = [
            ParameterGroup("factors A", a_factors, weight_decay=False, pull_to_start=pull),
            ParameterGroup("factors B", b_factors, self.b_learning_rate_scale, weight_decay=False, pull_to_start=pull),
        ]
        return [group for group in groups if group.parameters] + dense_groups("", others, pull_to_start=pull)

    def describe(self, network: nn.Module) -> str:
        """How many numbers stand for how many."""
        factors = {id(parameter) for part in lora_parameters(network) for parameter in part}
        weights = sum(parameter.numel() for parameter in network.parameters() if id(parameter) not in factors)
        moving = trainable_parameters(network)
        return f"{moving:,} numbers move for {weights:,} parameters ({moving / weights:.1%}); a step is a full one"

    def factors(self, network: nn.Module) -> dict[str, LowRank]:
        """The low-rank updates of all adapted layers."""
        return lora_factors(network)

    def finish(self, network: nn.Module) -> None:
        """Merge the updates into the weights."""
        fold_lora(network)
        network.requires_grad_(True)
