"""The one training loop, read from top to bottom, for training from scratch and for every method of adaptation.

Terms: an epoch is a fixed number of steps; the method says before each epoch what may move; after it windows of the
held-out cases are predicted, and the weights of the best epoch (highest mean Dice, then lowest loss) are what remains.

Several processes share the batches (see `processes`): each draws what one would draw, and trains on its part of it.

Invariants: one seed gives one series of patches, changes and weights on a CPU, with or without an interruption that a
checkpoint bridges; several processes have the same weights after each step, and the loss of the whole batch; the loss
is finite or training stops with a TrainingError; no step waits for a GPU, the loss stays on it until the epoch ends;
the network that comes back is the one that was handed in, with the best weights, unfolded (the method's `finish`
folds).
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dafne_dante.adaptation.protocol import Method, trainable_parameters
from dafne_dante.errors import TrainingError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.ahead import draw_ahead
from dafne_dante.training.augmentation import apply_changes, draw_changes
from dafne_dante.training.averaging import AveragedWeights, named_tensors, put_tensors
from dafne_dante.training.checkpoint import identify_training, read_checkpoint, write_checkpoint
from dafne_dante.training.deep_supervision import AuxiliaryHeads, SupervisedNetwork, supervised_loss
from dafne_dante.training.hardware import as_channels_last, set_memory_format
from dafne_dante.training.held_out import HeldOutWindows
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.losses import BatchShare
from dafne_dante.training.mirroring import mirror_axes
from dafne_dante.training.optimizer import adamw
from dafne_dante.training.prepared import PreparedCase
from dafne_dante.training.processes import ALONE, Processes
from dafne_dante.training.recipe import Recipe, rate_factor
from dafne_dante.training.run import Best, Run, optimizer_groups, release, restore, take_snapshot, where_pulled
from dafne_dante.training.sampling import Batch, PatchSampler

__all__ = ["FitResult", "Recipe", "fit"]

_MEASURING_SHARE = 0.06
"""Of an epoch's work: what looking at held-out cases may take."""
_BATCHES_TO_LOOK_AT = 4
_CHECKPOINT_MARGIN_BYTES = 64 << 20
_COPIES_IN_CHECKPOINT = 6
"""Network, best, average, two moments, and heads that are smaller than one more."""


@dataclass(frozen=True)
class FitResult:
    """The rows of the run and the epoch whose weights remain."""

    history: tuple[EpochRecord, ...]
    best_epoch: int


def fit(
    network: nn.Module,
    plan: ModelPlan,
    method: Method,
    training: Sequence[PreparedCase],
    held_out: Sequence[PreparedCase],
    *,
    recipe: Recipe,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    on_stage: Callable[[str], None] = lambda words: None,
    checkpoint: Path | None = None,
    processes: Processes = ALONE,
    stop: Callable[[], bool] = lambda: False,
    look_at: Sequence[PreparedCase] = (),
) -> FitResult:
    """Train `network` in place by `method` and leave it with the weights of its best epoch.

    Args:
        on_stage: is told what moves, in words, at the beginning and whenever that changes.
        checkpoint: a file that is written after every epoch; where it exists, training goes on from it. It stays when
            training is done; who named it removes it. The first process writes it, all read it.
        processes: those that share this training, with the same arguments.
        stop: whether to end with the best so far; asked before every epoch but the first.
        look_at: what the method is shown before the first epoch; the training cases when left out.

    Raises:
        NotEnoughCasesError: no annotated slice to learn from.
        TrainingError: the loss is not finite, or the checkpoint is damaged or of another training; a process
            is gone, or there is no patch for each.
        StorageError: the checkpoint cannot be read or written.
    """
    torch.manual_seed(recipe.seed)
    identity = ""
    if checkpoint is not None:
        identity = processes.from_first(
            lambda: identify_training((plan, method, recipe), training, held_out, named_tensors(network))
        )
    run = _begin(network, plan, method, training, recipe, look_at=look_at or training, processes=processes)
    if checkpoint is not None and processes.from_first(checkpoint.exists):
        restore(run, method, recipe, read_checkpoint(checkpoint, identity, max_bytes=_checkpoint_bytes(network)))
    windows = HeldOutWindows(held_out, plan, most_voxels=_voxels_to_measure(plan, recipe))
    begin = time.perf_counter() - run.seconds
    with closing(run), recipe.numerics.threads_in_use():
        first = len(run.history) + 1
        for epoch in range(first, (recipe.last_epoch or recipe.epochs) + 1):
            if 0 < recipe.patience <= run.waited or (run.history and stop()):
                break
            if release(run, method, recipe, epoch) or epoch == first:
                on_stage(method.describe(network))
                run.outputs = processes.spread(SupervisedNetwork(network, run.heads))
            started = time.perf_counter()
            loss = _train_epoch(run, plan, recipe, epoch)
            seconds = time.perf_counter() - started
            record = _assess(run, windows, recipe, epoch, train_loss=loss, train_seconds=seconds)
            run.seconds = time.perf_counter() - begin
            run.history.append(EpochRecord(**{**vars(record), "seconds": run.seconds}))
            if checkpoint is not None and processes.is_first:
                write_checkpoint(checkpoint, take_snapshot(run), identity)
            on_epoch(run.history[-1])
    assert run.best is not None  # at least one epoch ran
    put_tensors(network, run.best.weights)
    set_memory_format(network, channels_last=False)
    network.eval()
    return FitResult(tuple(run.history), run.best.epoch)


def _begin(
    network: nn.Module,
    plan: ModelPlan,
    method: Method,
    training: Sequence[PreparedCase],
    recipe: Recipe,
    *,
    look_at: Sequence[PreparedCase],
    processes: Processes,
) -> Run:
    """The run before its first epoch."""
    device = next(network.parameters()).device
    sampler = PatchSampler(training, plan, recipe.seed)
    if recipe.numerics.channels_last:
        set_memory_format(network, channels_last=True)
    method.prepare(network, torch.zeros(1, plan.in_channels, *plan.patch, device=device))
    network.train()
    method.look(network, lambda: _first_losses(network, plan, look_at, recipe))
    method.advance(network, 1, recipe.epochs)
    heads = AuxiliaryHeads(network) if recipe.deep_supervision else None
    groups = optimizer_groups(network, method, recipe, heads)
    return Run(
        network=network,
        outputs=SupervisedNetwork(network, heads),
        optimizer=adamw(groups, recipe.learning_rate),
        start=where_pulled(groups),
        stiffness={
            parameter: value
            for group in method.parameter_groups(network)
            for parameter, value in zip(group.parameters, group.stiffness, strict=False)
        },
        sampler=sampler,
        generator=torch.Generator().manual_seed(recipe.seed),
        average=AveragedWeights(network, recipe.average_decay) if recipe.average_decay else None,
        heads=heads,
        mirror_axes=mirror_axes(plan, training),
        processes=processes,
    )


def _first_losses(network: nn.Module, plan: ModelPlan, cases: Sequence[PreparedCase], recipe: Recipe) -> list[Tensor]:
    """Losses of a few batches, from a source of their own, so that the training draws what it would have drawn."""
    device = next(network.parameters()).device
    sampler = PatchSampler(cases, plan, recipe.seed + 1)
    batches = (sampler.draw(recipe.batch_size) for _ in range(_BATCHES_TO_LOOK_AT))
    return [
        supervised_loss([network(batch.image.to(device))], batch.target.to(device), batch.known.to(device))
        for batch in batches
    ]


def _voxels_to_measure(plan: ModelPlan, recipe: Recipe) -> int:
    """What may go forward after an epoch; a step is worth three passes forward, and a running mean is measured, too."""
    steps = 3 * recipe.steps_per_epoch * recipe.batch_size * math.prod(plan.patch)
    return int(_MEASURING_SHARE * steps / (2 if recipe.average_decay else 1))


def _train_epoch(run: Run, plan: ModelPlan, recipe: Recipe, epoch: int) -> float:
    """Mean loss of one epoch; the loss stays on the device until the epoch ends, so no step waits for it."""
    device = next(run.network.parameters()).device
    total = torch.zeros((), device=device)
    moving = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    size, part = recipe.batch_size, run.processes.part(recipe.batch_size)
    batches = draw_ahead(lambda: run.sampler.draw(size, part), recipe.steps_per_epoch, device)
    for step, batch in enumerate(batches, start=(epoch - 1) * recipe.steps_per_epoch + 1):
        for group in run.optimizer.param_groups:
            factor = rate_factor(step, recipe, steps_before=group["steps_before"])
            group["lr"] = recipe.learning_rate * group["learning_rate_scale"] * factor
        draw = draw_changes(size, plan, recipe.augmentation, run.generator, mirror_axes=run.mirror_axes)
        total += _step(run, apply_changes(batch, draw.part(part.start, part.stop)), recipe, moving)
    totals = run.processes.gather(float(total))
    mean: float = sum(totals) / len(totals) / recipe.steps_per_epoch
    if not math.isfinite(mean):
        raise TrainingError("expected a finite loss, found NaN or infinity; lower the learning rate or check images")
    return mean


def _step(run: Run, batch: Batch, recipe: Recipe, moving: list[nn.Parameter]) -> Tensor:
    """One step; one whose gradient bfloat16 cannot hold (seen in norms over a few voxels) is taken in float32."""
    loss = _backward(run, batch, recipe, bfloat16=recipe.numerics.bfloat16)
    length = nn.utils.clip_grad_norm_(moving, recipe.clip_norm)
    # Processes that share a training have one gradient, so all of them take the step again, or none.
    if recipe.numerics.bfloat16 and not math.isfinite(float(length)):
        loss = _backward(run, batch, recipe, bfloat16=False)
        nn.utils.clip_grad_norm_(moving, recipe.clip_norm)
    run.optimizer.step()
    if run.start:
        _pull_to_start(run)
    if run.average is not None:
        run.average.update()
    return loss


def _backward(run: Run, batch: Batch, recipe: Recipe, *, bfloat16: bool) -> Tensor:
    """The loss of a batch, and its gradient in the parameters."""
    image = as_channels_last(batch.image) if recipe.numerics.channels_last else batch.image
    with run.processes.speaking():
        with torch.autocast(image.device.type, torch.bfloat16, enabled=bfloat16):
            outputs = run.outputs(image)
        loss = supervised_loss(outputs, batch.target, batch.known, _share(run.processes, len(image), recipe))
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _share(processes: Processes, samples: int, recipe: Recipe) -> BatchShare | None:
    """What the loss of a part must know so that averaged gradients are those of the whole batch's loss."""
    if processes.count == 1:
        return None
    return BatchShare(processes.count, samples * processes.count / recipe.batch_size, processes.add)


@torch.no_grad()
def _pull_to_start(run: Run) -> None:
    for group in run.optimizer.param_groups:
        if group["pull_to_start"]:
            for parameter in group["params"]:
                pull = group["lr"] * group["pull_to_start"]
                stiffness = run.stiffness.get(parameter)
                # No further than the start: beyond it each step would lead farther away.
                share = min(pull, 1.0) if stiffness is None else (pull * stiffness).clamp(max=1.0)
                parameter.lerp_(run.start[parameter], share)


def _assess(
    run: Run, held_out: HeldOutWindows, recipe: Recipe, epoch: int, *, train_loss: float, train_seconds: float
) -> EpochRecord:
    """Measure the epoch, with its weights and with their running mean, and keep the better ones if they are best."""
    rate = recipe.learning_rate * rate_factor(epoch * recipe.steps_per_epoch, recipe)
    moving = trainable_parameters(run.network)
    rows: list[tuple[tuple[float, float], EpochRecord]] = []
    candidates = [nullcontext()] + ([run.average.in_network()] if run.average else [])
    for weights in candidates:
        with weights:
            val_loss, dice = held_out.measure(run.network, run.processes)
            record = EpochRecord(epoch, 0.0, train_loss, val_loss, dice, moving, rate, train_seconds)
            rows.append((record.score, record))
            if run.best is None or recipe.last_epoch or rows[-1][0] > run.best.score:
                copies = {name: tensor.clone() for name, tensor in named_tensors(run.network).items()}
                run.best = Best(epoch, rows[-1][0], copies)
    return max(rows, key=lambda row: row[0])[1]


def _checkpoint_bytes(network: nn.Module) -> int:
    """The most that a checkpoint of this network can have."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in named_tensors(network).values())
    return _COPIES_IN_CHECKPOINT * weights + _CHECKPOINT_MARGIN_BYTES
