"""Gradual unfreezing as a method: stages, the order in which they are released, and a schedule.

Terms: the *direction* is where release begins: at the output (the paper's, arXiv 2605.03602), at the input, or where a
probe finds that the loss asks for most change, the gradient's length over the weights' (surgical fine-tuning, arXiv
2210.11466); for U-Nets none of them is best everywhere (SCIENCE section 4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.adaptation.protocol import ParameterGroup, check_pull, dense_groups, trainable_parameters
from dafne_dante.adaptation.stages import Stage, module_stages, stages
from dafne_dante.adaptation.unfreezing import PaperSchedule, PhasedSchedule, Schedule, release_only
from dafne_dante.adaptation.work import live_share, stage_work
from dafne_dante.errors import TrainingError

__all__ = ["SCHEDULE_NAMES", "GradualUnfreezing", "gradual_unfreezing_by"]

SCHEDULE_NAMES = ("paper", "phased", "probe")


@dataclass
class GradualUnfreezing:
    """Stages are released one after the other, by a schedule.

    The stages are measured by `prepare` and kept here, because the order of execution cannot be read from a network.
    One object serves one network.

    Attributes:
        schedule: when stages are released.
        unit: what is released as a whole: a U-Net stage, or (the paper's) a module.
        direction: where release begins.
        learning_rate_decay: of each stage over the one that is released before it, above 0 (ULMFiT, arXiv 1801.06146).
        pull_to_start: of what is released, see ParameterGroup.

    Raises:
        TrainingError: the decay or the pull is out of its range.
    """

    schedule: Schedule = field(default_factory=PhasedSchedule)
    unit: Literal["stage", "module"] = "stage"
    direction: Literal["output", "input", "probe"] = "output"
    learning_rate_decay: float = 1.0
    pull_to_start: float = 0.0
    name: Literal["gradual-unfreezing"] = field(default="gradual-unfreezing", init=False)
    _stages: tuple[Stage, ...] = field(default=(), init=False, repr=False)
    _work: tuple[float, ...] = field(default=(), init=False, repr=False)
    _order: tuple[int, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate_decay <= 1:
            raise TrainingError(f"expected a decay of learning rates above 0 to 1, found {self.learning_rate_decay}")
        check_pull(self.pull_to_start)

    def prepare(self, network: nn.Module, example: Tensor) -> None:
        """Find the stages and freeze those that the schedule begins without."""
        self._stages = module_stages(network, example) if self.unit == "module" else stages(network, example)
        if not self._stages:
            raise TrainingError("expected a network with parameters, found none")
        self._work = stage_work(network, example, self._stages)
        count = len(self._stages)
        self._order = tuple(range(count) if self.direction == "input" else reversed(range(count)))
        self._release(network, self.schedule.initial(count))

    def look(self, network: nn.Module, losses: Callable[[], Sequence[Tensor]]) -> None:
        """Where the direction is to be probed: order the stages by what the loss asks of them, and freeze again."""
        if self.direction != "probe":
            return
        network.requires_grad_(True)
        asked = _asked(network, self._prepared(), losses())
        self._order = tuple(sorted(range(len(asked)), key=lambda index: (-asked[index], -index)))
        self._release(network, self.schedule.initial(len(asked)))

    def advance(self, network: nn.Module, epoch: int, epochs: int, scores: Sequence[float] = ()) -> bool:
        """Release what is due, and hold the frozen stages in evaluation mode."""
        return self._release(network, self.schedule.frozen(epoch, epochs, len(self._prepared()), scores))

    def parameter_groups(self, network: nn.Module) -> list[ParameterGroup]:
        """For each released stage its weights and its vectors, from the input on."""
        parameters = dict(network.named_parameters())
        groups = []
        for index, stage in enumerate(self._prepared()):
            owned = [parameters[name] for name in stage.parameter_names if parameters[name].requires_grad]
            rate = self.learning_rate_decay ** self._order.index(index)
            groups += dense_groups(f"{stage.name}: ", owned, learning_rate_scale=rate, pull_to_start=self.pull_to_start)
        return groups

    def describe(self, network: nn.Module) -> str:
        """How many stages, what share of the parameters, and what share of a full step's work."""
        parameters = dict(network.named_parameters())
        moving = [any(parameters[name].requires_grad for name in one.parameter_names) for one in self._prepared()]
        share = trainable_parameters(network) / sum(parameter.numel() for parameter in parameters.values())
        work = live_share(self._work, moving)
        return f"{sum(moving)} of {len(moving)} stages move: {share:.0%} of the parameters, {work:.0%} of a step's work"

    def factors(self, network: nn.Module) -> dict[str, LowRank]:
        """None: updates are dense."""
        return {}

    def finish(self, network: nn.Module) -> None:
        """Release everything."""
        network.requires_grad_(True)

    def _release(self, network: nn.Module, frozen: int) -> bool:
        return release_only(network, self._stages, set(self._order[: len(self._order) - frozen]))

    def _prepared(self) -> tuple[Stage, ...]:
        if not self._stages:
            raise TrainingError("expected gradual unfreezing to be prepared first; call prepare with an example")
        return self._stages


def gradual_unfreezing_by(
    schedule: str, *, learning_rate_decay: float = 1.0, pull_to_start: float = 0.0
) -> GradualUnfreezing:
    """Gradual unfreezing as SCHEDULE_NAMES says: Dante's own steps on modules, phases, or phases where a probe begins.

    Raises:
        TrainingError: there is no such schedule, or a value is out of its range.
    """
    made = partial(GradualUnfreezing, learning_rate_decay=learning_rate_decay, pull_to_start=pull_to_start)
    if schedule == "paper":
        return made(PaperSchedule(), unit="module")
    if schedule == "phased":
        return made()
    if schedule == "probe":
        return made(direction="probe")
    raise TrainingError(f"expected a schedule from {', '.join(SCHEDULE_NAMES)}, found {schedule}")


def _asked(network: nn.Module, found: Sequence[Stage], losses: Sequence[Tensor]) -> list[float]:
    """For each stage the length of the mean gradient over that of its weights; gradients are dropped afterwards."""
    parameters = dict(network.named_parameters())
    torch.stack(list(losses)).mean().backward()  # type: ignore[no-untyped-call]
    shares = []
    for stage in found:
        owned = [parameters[name] for name in stage.parameter_names]
        gradient = sum(float(one.grad.square().sum()) for one in owned if one.grad is not None)
        weight = sum(float(one.detach().square().sum()) for one in owned)
        shares.append((gradient / weight) ** 0.5 if weight else 0.0)
    network.zero_grad(set_to_none=True)
    return shares
