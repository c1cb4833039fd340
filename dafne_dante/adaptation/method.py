"""The methods of fine-tuning, behind one protocol: what may move, when, and at which learning rate.

A training loop calls, in this order: `prepare` once; before every epoch `network.train()` and then `advance`;
`parameter_groups` after `prepare` and whenever `advance` returned True; `factors` for the delta; `finish` last.

Invariants: parameters that may not move have `requires_grad` False and no gradient; each trainable parameter is in
exactly one group; a group's name stands for the same parameters for good, so that an optimiser can be given the groups
that it has not seen yet; vectors (norm affines, slopes, biases) and low-rank factors get no weight decay.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from dafne_dante.adaptation.lora import attach_lora, fold_lora, lora_factors, lora_parameters
from dafne_dante.adaptation.low_rank import Form, LowRank
from dafne_dante.adaptation.stages import Stage, module_stages, output_head, stages
from dafne_dante.adaptation.unfreezing import PhasedSchedule, Schedule, release_from
from dafne_dante.errors import TrainingError

__all__ = [
    "METHOD_NAMES",
    "FullFineTuning",
    "GradualUnfreezing",
    "LowRankAdaptation",
    "Method",
    "ParameterGroup",
    "method_named",
    "trainable_parameters",
]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        name: unique among a method's groups.
        parameters: trainable ones, at least one.
        learning_rate_scale: factor on the run's learning rate.
        weight_decay: whether the run's weight decay applies.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    learning_rate_scale: float = 1.0
    weight_decay: bool = True


class Method(Protocol):
    """One way to fine-tune; the order of calls is in the module docstring. `example` is (B, C, *patch)."""

    @property
    def name(self) -> str:
        """As in METHOD_NAMES."""

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Set what may move before the first epoch; TrainingError where the network does not suit the method."""

    def advance(self, network: nn.Module, epoch: int, epochs: int) -> bool:
        """Set what may move in `epoch` (from 1) of `epochs`; True when the set of trainable parameters changed."""

    def parameter_groups(self, network: nn.Module) -> list[ParameterGroup]:
        """What is trainable now."""

    def factors(self, network: nn.Module) -> dict[str, LowRank]:
        """Weight name to low-rank update, copies on the CPU; empty where updates are dense."""

    def finish(self, network: nn.Module) -> None:
        """Fold everything into plain weights and let all of them move again, as in a network just built."""


@dataclass(frozen=True)
class LowRankAdaptation:
    """LoRA on all convolutions, dense training of the output head and of everything small (SCIENCE section 3).

    Attributes:
        rank: at most; capped by each layer.
        form: of convolutions, `lora-shared` or the paper's `lora-channel`.
        scale: of the update, the same at every rank.
        b_learning_rate_scale: learning rate of B over that of A (LoRA+, arXiv 2402.12354).
    """

    rank: int = 8
    form: Form = "lora-shared"
    scale: float = 2.0
    b_learning_rate_scale: float = 1.0
    name: Literal["lora"] = field(default="lora", init=False)

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Attach LoRA; the layer that makes the output trains densely."""
        head = output_head(network, example)
        dense_layers = () if head is None else (head,)
        attach_lora(network, rank=self.rank, form=self.form, scale=self.scale, dense_layers=dense_layers)

    def advance(self, network: nn.Module, epoch: int, epochs: int) -> bool:
        """Nothing changes from epoch to epoch."""
        return False

    def parameter_groups(self, network: nn.Module) -> list[ParameterGroup]:
        """Factors A, factors B, dense weights, vectors."""
        a_factors, b_factors = lora_parameters(network)
        taken = {id(parameter) for parameter in (*a_factors, *b_factors)}
        others = [p for p in network.parameters() if p.requires_grad and id(p) not in taken]
        groups = [
            ParameterGroup("factors A", a_factors, weight_decay=False),
            ParameterGroup("factors B", b_factors, self.b_learning_rate_scale, weight_decay=False),
        ]
        return [group for group in groups if group.parameters] + _dense_groups("", others)

    def factors(self, network: nn.Module) -> dict[str, LowRank]:
        """The low-rank updates of all adapted layers."""
        return lora_factors(network)

    def finish(self, network: nn.Module) -> None:
        """Merge the updates into the weights."""
        fold_lora(network)
        network.requires_grad_(True)


@dataclass
class GradualUnfreezing:
    """Stages are released from the output back, by a schedule.

    The stages are measured by `prepare` and kept here, because the order of execution cannot be read from a network.
    One object serves one network.

    Attributes:
        schedule: when stages are released.
        unit: what is released as a whole: a U-Net stage, or (the paper's) a module.
    """

    schedule: Schedule = field(default_factory=PhasedSchedule)
    unit: Literal["stage", "module"] = "stage"
    name: Literal["gradual-unfreezing"] = field(default="gradual-unfreezing", init=False)
    _stages: tuple[Stage, ...] = field(default=(), init=False, repr=False)

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Find the stages and freeze those that the schedule begins without."""
        self._stages = module_stages(network, example) if self.unit == "module" else stages(network, example)
        if not self._stages:
            raise TrainingError("expected a network with parameters, found none")
        release_from(network, self._stages, self.schedule.initial(len(self._stages)))

    def advance(self, network: nn.Module, epoch: int, epochs: int) -> bool:
        """Release what is due, and hold the frozen prefix in evaluation mode."""
        first = self.schedule.first_trainable(epoch, epochs, len(self._prepared()))
        return release_from(network, self._stages, first)

    def parameter_groups(self, network: nn.Module) -> list[ParameterGroup]:
        """For each released stage its weights and its vectors, from the input on."""
        parameters = dict(network.named_parameters())
        groups = []
        for stage in self._prepared():
            owned = [parameters[name] for name in stage.parameter_names if parameters[name].requires_grad]
            groups += _dense_groups(f"{stage.name}: ", owned)
        return groups

    def factors(self, network: nn.Module) -> dict[str, LowRank]:
        """None: updates are dense."""
        return {}

    def finish(self, network: nn.Module) -> None:
        """Release everything."""
        network.requires_grad_(True)

    def _prepared(self) -> tuple[Stage, ...]:
        if not self._stages:
            raise TrainingError("expected gradual unfreezing to be prepared first; call prepare with an example")
        return self._stages


@dataclass(frozen=True)
class FullFineTuning:
    """Everything moves from the first epoch; also training from scratch."""

    name: Literal["full"] = field(default="full", init=False)

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Release everything."""
        network.requires_grad_(True)

    def advance(self, network: nn.Module, epoch: int, epochs: int) -> bool:
        """Nothing changes from epoch to epoch."""
        return False

    def parameter_groups(self, network: nn.Module) -> list[ParameterGroup]:
        """Weights and vectors."""
        return _dense_groups("", [parameter for parameter in network.parameters() if parameter.requires_grad])

    def factors(self, network: nn.Module) -> dict[str, LowRank]:
        """None: updates are dense."""
        return {}

    def finish(self, network: nn.Module) -> None:
        """Nothing to fold."""


_METHODS: Mapping[str, type[LowRankAdaptation] | type[GradualUnfreezing] | type[FullFineTuning]] = {
    "full": FullFineTuning,
    "gradual-unfreezing": GradualUnfreezing,
    "lora": LowRankAdaptation,
}
METHOD_NAMES: tuple[str, ...] = tuple(sorted(_METHODS))


def method_named(name: str, **options: Any) -> Method:
    """A new method of METHOD_NAMES; options are the attributes of its class.

    Raises:
        TrainingError: there is no such method, or it has no such option.
    """
    if name not in _METHODS:
        raise TrainingError(f"expected a method from {', '.join(METHOD_NAMES)}, found {name}")
    known = [item.name for item in fields(_METHODS[name]) if item.init]
    if unknown := sorted(options.keys() - set(known)):
        expected = ", ".join(known) or "no option"
        raise TrainingError(f"expected for {name} {expected}, found {', '.join(unknown)}")
    return _METHODS[name](**options)


def trainable_parameters(network: nn.Module) -> int:
    """How many numbers may move now."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _dense_groups(prefix: str, parameters: list[nn.Parameter]) -> list[ParameterGroup]:
    """Up to two groups: weights, which decay, and vectors, which do not (a norm's scale has no reason to shrink)."""
    weights = tuple(parameter for parameter in parameters if parameter.dim() > 1)
    vectors = tuple(parameter for parameter in parameters if parameter.dim() <= 1)
    groups = [
        ParameterGroup(f"{prefix}weights", weights),
        ParameterGroup(f"{prefix}vectors", vectors, weight_decay=False),
    ]
    return [group for group in groups if group.parameters]
