"""The one training loop, read from top to bottom, for training from scratch and for every method of adaptation.

Terms: an epoch is a fixed number of steps; the method says before each epoch what may move; after it the held-out
cases are predicted, and the weights of the best epoch (highest mean Dice, then lowest loss) are what remains.

Invariants: one seed gives one series of patches, changes and weights on a CPU; loss and norm of the gradient are
finite or training stops with a TrainingError; the network that comes back is the one that was handed in, with the
best weights, unfolded (the method's `finish` folds).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dafne_dante.adaptation.method import Method, trainable_parameters
from dafne_dante.errors import TrainingError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.predict import predict_logits
from dafne_dante.training.augmentation import apply_intensity, draw_intensity
from dafne_dante.training.hardware import Numerics, as_channels_last, set_memory_format
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.losses import dice_cross_entropy
from dafne_dante.training.metrics import average_dice, dice_from_counts, overlap_counts
from dafne_dante.training.prepared import PreparedCase
from dafne_dante.training.sampling import Batch, PatchSampler

__all__ = ["FitResult", "Recipe", "fit", "validate"]

_FINAL_RATE = 0.02


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        learning_rate: of AdamW, before each group's own factor; linear warm-up, then cosine to 2 %.
        clip_norm: the largest L2 norm of a step's gradient.
        augmentation: strength of intensity changes, 0 for none.
    """

    epochs: int = 20
    steps_per_epoch: int = 20
    batch_size: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 10
    clip_norm: float = 1.0
    augmentation: float = 0.5
    seed: int = 0
    numerics: Numerics = field(default_factory=Numerics)


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
) -> FitResult:
    """Train `network` in place by `method` and leave it with the weights of its best epoch.

    Raises:
        NotEnoughCasesError: no annotated slice to learn from.
        TrainingError: the loss is not finite, or the recipe asks for no step at all.
    """
    if recipe.epochs < 1 or recipe.steps_per_epoch < 1:
        raise TrainingError(f"expected at least one epoch and one step, found {recipe.epochs} epochs")
    torch.manual_seed(recipe.seed)
    device = next(network.parameters()).device
    sampler = PatchSampler(training, plan, recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    if recipe.numerics.channels_last:
        set_memory_format(network, channels_last=True)
    method.prepare(network, torch.zeros(1, plan.in_channels, *plan.patch, device=device))
    network.train()
    method.advance(network, 1, recipe.epochs)
    optimizer = torch.optim.AdamW(_groups(method, network, recipe), lr=recipe.learning_rate)
    history: list[EpochRecord] = []
    best: tuple[tuple[float, float], int, dict[str, Tensor]] | None = None
    begin = time.perf_counter()
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        # After train(), so that the method can hold a frozen part in evaluation mode.
        if method.advance(network, epoch, recipe.epochs):
            _add_released(optimizer, _groups(method, network, recipe))
        train_loss = _train_epoch(network, optimizer, sampler, generator, recipe=recipe, epoch=epoch)
        val_loss, dice = validate(network, plan, held_out)
        rate = recipe.learning_rate * _rate_factor(epoch * recipe.steps_per_epoch, recipe)
        live = trainable_parameters(network)
        record = EpochRecord(epoch, time.perf_counter() - begin, train_loss, val_loss, dice, live, rate)
        history.append(record)
        score = _score(record)
        if best is None or score > best[0]:
            best = score, epoch, {name: value.detach().clone() for name, value in network.state_dict().items()}
        on_epoch(record)
    assert best is not None  # at least one epoch ran
    network.load_state_dict(best[2], strict=True)
    set_memory_format(network, channels_last=False)
    network.eval()
    return FitResult(tuple(history), best[1])


def validate(
    network: nn.Module, plan: ModelPlan, cases: Sequence[PreparedCase]
) -> tuple[float | None, dict[str, float | None]]:
    """Loss and Dice ("mean" and each label) on prepared cases, on the network's grid; None without cases.

    Slices of one case count together, as one volume does.
    """
    losses: list[float] = []
    counts: dict[str, npt.NDArray[np.int64]] = {}
    for case in cases:
        if not case.known.any():
            continue  # every labelled slice was outside the tissue that stock clients crop to
        logits = predict_logits(network, plan, case.prepared)
        target = torch.from_numpy(case.target)[None].to(logits.device)
        known = torch.from_numpy(np.ascontiguousarray(case.known_voxels))[None].to(logits.device)
        losses.append(float(dice_cross_entropy(logits[None], target, known)))
        prediction = logits.argmax(dim=0).to(torch.uint8).cpu().numpy()
        found = overlap_counts(prediction, case.target, case.known_voxels, plan.labels)
        counts[case.case_id] = counts.get(case.case_id, 0) + found
    scores = [dice_from_counts(count, plan.labels) for count in counts.values()]
    return (float(np.mean(losses)) if losses else None), average_dice(scores, plan.labels)


def _train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    sampler: PatchSampler,
    generator: torch.Generator,
    *,
    recipe: Recipe,
    epoch: int,
) -> float:
    """Mean loss of one epoch; the loss stays on the device until the epoch ends, so no step waits for it."""
    device = next(network.parameters()).device
    total = torch.zeros((), device=device)
    for step in range(recipe.steps_per_epoch):
        factor = _rate_factor((epoch - 1) * recipe.steps_per_epoch + step + 1, recipe)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * group["learning_rate_scale"] * factor
        total += _step(network, optimizer, sampler.draw(recipe.batch_size), generator, recipe)
    mean = float(total) / recipe.steps_per_epoch
    if not math.isfinite(mean):
        raise TrainingError("expected a finite loss, found NaN or infinity; lower the learning rate or check images")
    return mean


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, generator: torch.Generator, recipe: Recipe
) -> Tensor:
    device = next(network.parameters()).device
    image, target, known = (tensor.to(device, non_blocking=True) for tensor in (batch.image, batch.target, batch.known))
    if recipe.augmentation > 0:
        image = apply_intensity(image, draw_intensity(len(image), recipe.augmentation, generator), generator)
    if recipe.numerics.channels_last:
        image = as_channels_last(image)
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.numerics.bfloat16):
        logits = network(image)
    loss = dice_cross_entropy(logits, target, known)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    moving = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    nn.utils.clip_grad_norm_(moving, recipe.clip_norm)
    optimizer.step()
    return loss.detach()


def _groups(method: Method, network: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    return [
        {
            "params": list(group.parameters),
            "learning_rate_scale": group.learning_rate_scale,
            "weight_decay": recipe.weight_decay if group.weight_decay else 0.0,
        }
        for group in method.parameter_groups(network)
        if group.parameters
    ]


def _add_released(optimizer: torch.optim.Optimizer, groups: list[dict[str, object]]) -> None:
    """Give parameters that were just released groups of their own; those that move already keep their state."""
    moving = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for group in groups:
        parameters = group["params"]
        assert isinstance(parameters, list)
        released = [parameter for parameter in parameters if id(parameter) not in moving]
        if released:
            optimizer.add_param_group({**group, "params": released})


def _rate_factor(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then cosine; `step` counts from 1."""
    if step <= recipe.warmup_steps:
        return step / recipe.warmup_steps
    total = max(1, recipe.epochs * recipe.steps_per_epoch - recipe.warmup_steps)
    progress = min(1.0, (step - recipe.warmup_steps) / total)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))


def _score(record: EpochRecord) -> tuple[float, float]:
    """Higher is better: Dice first, loss second; without held-out cases the training loss decides."""
    mean = record.dice.get("mean")
    loss = record.train_loss if record.val_loss is None else record.val_loss
    return (-1.0 if mean is None else mean), -loss
