"""A training under way: everything that changes from step to step, taken apart for a checkpoint and put back.

Terms: a *run* is the network with its optimiser, sources of chance, running mean, auxiliary heads and record.

Invariants
- What `take_snapshot` gives at the end of an epoch and `restore` puts into a run that was begun alike continues bit for
  bit, on one machine's CPU: weights, both moments and the steps of the optimiser, running mean, heads, the sampler's
  queue, all generators, history and best epoch. There is no gradient scaler: float16 is never used.
- Which parameters move follows from the method and the epoch; it is not stored but repeated, and compared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dafne_dante.adaptation.protocol import Method
from dafne_dante.errors import TrainingError
from dafne_dante.training.averaging import AveragedWeights, named_tensors, put_tensors
from dafne_dante.training.checkpoint import Snapshot
from dafne_dante.training.deep_supervision import AuxiliaryHeads
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.processes import ALONE, Processes
from dafne_dante.training.recipe import Recipe
from dafne_dante.training.sampling import PatchSampler

__all__ = ["Best", "Run", "optimizer_groups", "release", "restore", "take_snapshot", "where_pulled"]


@dataclass(frozen=True, eq=False)
class Best:
    """The best epoch so far: its score (higher is better) and copies of its weights."""

    epoch: int
    score: tuple[float, float]
    weights: dict[str, Tensor]


@dataclass(eq=False)
class Run:
    """What training changes.

    `start` holds where parameters began that are pulled back there, `stiffness` how much more or less than the others;
    `outputs` is what a step calls: network and heads, whose gradients are averaged where several processes train.
    """

    network: nn.Module
    outputs: nn.Module
    optimizer: torch.optim.Optimizer
    sampler: PatchSampler
    generator: torch.Generator
    average: AveragedWeights | None
    heads: AuxiliaryHeads | None
    mirror_axes: tuple[int, ...] = ()
    start: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    stiffness: Mapping[nn.Parameter, Tensor] = field(default_factory=dict)
    history: list[EpochRecord] = field(default_factory=list)
    best: Best | None = None
    seconds: float = 0.0
    processes: Processes = ALONE

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return len(self.history) - (self.best.epoch if self.best else 0)

    def close(self) -> None:
        """Take off what hangs on the network beside it."""
        if self.heads is not None:
            self.heads.close()


def release(run: Run, method: Method, recipe: Recipe, epoch: int) -> bool:
    """Set what moves in `epoch`, and give the optimiser what was just released; True where that changed."""
    run.network.train()
    scores = [record.score[0] if record.score[0] >= 0 else record.score[1] for record in run.history[: epoch - 1]]
    # After train(), so that the method can hold a frozen part in evaluation mode.
    if not method.advance(run.network, epoch, recipe.epochs, scores):
        return False
    moving = {id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]}
    for group in optimizer_groups(run.network, method, recipe):
        released = [parameter for parameter in group["params"] if id(parameter) not in moving]
        if released:
            steps = (epoch - 1) * recipe.steps_per_epoch
            run.optimizer.add_param_group({**group, "params": released, "steps_before": steps})
            run.start |= where_pulled([{**group, "params": released}])
    return True


def where_pulled(groups: Iterable[Mapping[str, Any]]) -> dict[nn.Parameter, Tensor]:
    """Copies of what is pulled back to where it is now: before the run, or when it is released, not having moved."""
    pulled = [parameter for group in groups if group["pull_to_start"] for parameter in group["params"]]
    return {parameter: parameter.detach().clone() for parameter in pulled}


def optimizer_groups(
    network: nn.Module, method: Method, recipe: Recipe, heads: AuxiliaryHeads | None = None
) -> list[dict[str, Any]]:
    """What moves now as groups of an optimiser, each with its factor on the learning rate and its pull to the start.

    `steps_before` is how many steps the run had taken when the group was released: it warms up from there.
    """
    groups = [
        {
            "params": list(group.parameters),
            "learning_rate_scale": group.learning_rate_scale,
            "weight_decay": recipe.weight_decay if group.weight_decay else 0.0,
            "pull_to_start": group.pull_to_start,
            "steps_before": 0,
        }
        for group in method.parameter_groups(network)
        if group.parameters
    ]
    if heads is not None:
        beside = list(heads.parameters())
        own = {"learning_rate_scale": 1.0, "weight_decay": recipe.weight_decay}
        groups.append({"params": beside, **own, "pull_to_start": 0.0, "steps_before": 0})
    return groups


def take_snapshot(run: Run) -> Snapshot:
    """The run after an epoch; tensors are on the CPU, and there the run's own, which its next step changes."""
    tensors = {f"network/{name}": tensor for name, tensor in named_tensors(run.network).items()}
    state: dict[str, Any] = {
        "seconds": run.seconds,
        "history": [asdict(record) for record in run.history],
        "sampler": run.sampler.state(),
        "moving": sorted(_moving(run)),
    }
    for name, parameter in _moving(run).items():
        for key, value in run.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    if run.average is not None:
        tensors |= {f"average/{name}": tensor for name, tensor in run.average.mean.items()}
        state["average_steps"] = run.average.steps
    if run.heads is not None:
        tensors |= {f"heads/{name}": tensor for name, tensor in named_tensors(run.heads).items()}
    if run.best is not None:
        tensors |= {f"best/{name}": tensor for name, tensor in run.best.weights.items()}
        state["best"] = {"epoch": run.best.epoch, "score": list(run.best.score)}
    tensors |= {f"chance/{name}": source.get_state() for name, source in _chances(run).items()}
    return Snapshot({name: _on_cpu(tensor) for name, tensor in tensors.items()}, state)


def restore(run: Run, method: Method, recipe: Recipe, snapshot: Snapshot) -> None:
    """Put a snapshot into a run that has just begun.

    Raises:
        TrainingError: the snapshot does not fit the run.
    """
    try:
        _restore(run, method, recipe, snapshot)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise TrainingError(
            f"expected a checkpoint that fits this training, found another ({type(error).__name__}); "
            "start again without --resume"
        ) from error


def _restore(run: Run, method: Method, recipe: Recipe, snapshot: Snapshot) -> None:
    tensors, state = snapshot.tensors, snapshot.state
    run.history = [EpochRecord(**record) for record in state["history"]]
    for epoch in range(1, len(run.history) + 1):
        release(run, method, recipe, epoch)
    if sorted(_moving(run)) != state["moving"]:
        raise ValueError("other parameters move")
    put_tensors(run.network, _under(tensors, "network", named_tensors(run.network)))
    _restore_optimizer(run, tensors)
    if run.average is not None:
        run.average.steps = int(state["average_steps"])
        for name, value in _under(tensors, "average", run.average.mean).items():
            run.average.mean[name].copy_(value)
    if run.heads is not None:
        put_tensors(run.heads, _under(tensors, "heads", named_tensors(run.heads)))
    best = state["best"]
    weights = _under(tensors, "best", named_tensors(run.network))
    own = named_tensors(run.network)
    high, low = (float(value) for value in best["score"])
    run.best = Best(int(best["epoch"]), (high, low), {name: weights[name].to(own[name].device) for name in own})
    run.seconds = float(state["seconds"])
    run.sampler.restore(state["sampler"])
    for name, source in _chances(run).items():
        source.set_state(tensors[f"chance/{name}"])


def _restore_optimizer(run: Run, tensors: Mapping[str, Tensor]) -> None:
    moving = _moving(run)
    for key, value in tensors.items():
        part, _, rest = key.partition("/")
        if part != "optimizer":
            continue
        quantity, _, name = rest.partition("/")
        parameter = moving[name]
        if value.dim() and value.shape != parameter.shape:
            raise ValueError("another shape")
        own = torch.empty_like(parameter) if value.dim() else torch.empty_like(value)
        run.optimizer.state[parameter][quantity] = own.detach().copy_(value)


def _moving(run: Run) -> dict[str, nn.Parameter]:
    """What the optimiser moves, by name; heads under `heads.`"""
    names = {id(parameter): name for name, parameter in run.network.named_parameters()}
    if run.heads is not None:
        names |= {id(parameter): f"heads.{name}" for name, parameter in run.heads.named_parameters()}
    return {names[id(one)]: one for group in run.optimizer.param_groups for one in group["params"]}


def _chances(run: Run) -> dict[str, torch.Generator]:
    """Every generator that a step may draw from, besides the sampler's own."""
    device = next(run.network.parameters()).device
    sources = {"augmentation": run.generator, "cpu": torch.default_generator}
    if device.type == "cuda":
        sources["cuda"] = torch.cuda.default_generators[device.index or 0]
    return sources


def _under(tensors: Mapping[str, Tensor], part: str, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below `part/`; ValueError where names or shapes are not those of `like`."""
    found = {name.removeprefix(f"{part}/"): value for name, value in tensors.items() if name.startswith(f"{part}/")}
    if {name: value.shape for name, value in found.items()} != {name: value.shape for name, value in like.items()}:
        raise ValueError(f"other tensors in {part}")
    return found


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").contiguous()
