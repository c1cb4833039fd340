"""From the patch that the images ask for to the one that a machine can train on, and the batch with it.

Terms: a *draft* is the plan for a patch of about some size; the patch in it is rounded up to what its network divides.
The *median shape* is that of the median case on the plan's grid.

Rules (nnU-Net): start at the median shape; while a batch of two does not fit, shorten the axis that is longest
relative to the median shape by one step of its divisor; what is left over makes the batch larger, up to 5 % of all
voxels, so that a step does not see a small data set almost whole. On a CPU up to 1 %: many small steps teach as much in
the same time (2D, 196 slices: two a step 0.885 in 50 s; six 0.878 in 36 s and 0.887 in 73 s) and take less memory.

Invariants: the step that comes out lies within the budget by the estimate of `memory`, or a TrainingError says how
much would be needed; at least two patches make a batch.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from dafne_dante.errors import TrainingError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.planning.budget import MemoryBudget
from dafne_dante.models.planning.memory import StepMemory, measure_step
from dafne_dante.models.planning.wording import gigabytes

__all__ = ["SMALLEST_BATCH", "Draft", "Fitted", "Wish", "divisor_of", "fit", "fit_batch"]

SMALLEST_BATCH = 2
_SHARE_OF_DATA_ON_GPU, _SHARE_OF_DATA_ON_CPU = 0.05, 0.01
_UNET_STEP = {"unet2d": 32, "unet3d": 8}

Bound = Literal["images", "memory", "time"]
Draft = Callable[[tuple[int, ...]], ModelPlan]


@dataclass(frozen=True)
class Wish:
    """The patch that the images ask for, as the network would take it, and what a step with two would need."""

    patch: tuple[int, ...]
    step_bytes: int


@dataclass(frozen=True)
class Fitted:
    """A plan that fits.

    Attributes:
        plan, memory: it and what its network saves.
        wish: what it would be with more memory and time.
        bound: what the patch was bounded by.
    """

    plan: ModelPlan
    memory: StepMemory
    wish: Wish
    bound: Bound


def divisor_of(plan: ModelPlan) -> tuple[int, ...]:
    """What a patch of this plan's network is a multiple of."""
    if plan.architecture == "dynunet":
        return tuple(math.prod(column) for column in zip(*plan.strides, strict=True))
    return (_UNET_STEP[plan.architecture],) * len(plan.patch)


def fit(draft: Draft, wish: tuple[int, ...], budget: MemoryBudget) -> Fitted:
    """The draft with the largest patch up to `wish` that fits.

    Raises:
        TrainingError: not even the smallest patch fits.
    """
    plans = [draft(wish)]
    while (shorter := _shorten(draft, plans[-1])) is not None:
        plans.append(shorter)
    first_quick = next((index for index, plan in enumerate(plans) if _is_quick(plan, budget)), len(plans) - 1)
    memory_of = cache(lambda index: measure_step(plans[index]))
    # The network's memory falls along the list, so that a few measurements find the first that fits.
    position = bisect_left(
        range(len(plans) - 1), True, first_quick, key=lambda index: _two(memory_of(index), budget) <= budget.size_bytes
    )
    plan, memory = plans[position], memory_of(position)
    if _two(memory, budget) > budget.size_bytes:
        raise TrainingError(
            f"expected a memory budget of at least {gigabytes(_two(memory, budget))} for the smallest "
            f"{plan.architecture} of these cases, found {gigabytes(budget.size_bytes)}; allow more, or choose another "
            "architecture"
        )
    bound: Bound = "memory" if position > first_quick else "time" if position else "images"
    return Fitted(plan, memory, Wish(plans[0].patch, _two(memory_of(0), budget)), bound)


def fit_batch(fitted: Fitted, budget: MemoryBudget, data_voxels: float) -> tuple[int, str]:
    """Patches in a batch, and what keeps it from being larger, in words."""
    voxels = math.prod(fitted.plan.patch)
    share = _SHARE_OF_DATA_ON_GPU if budget.on_gpu else _SHARE_OF_DATA_ON_CPU
    limits = {f"more would pass {share:.0%} of all voxels": int(share * data_voxels / voxels)}
    if most := budget.most_voxels.get(fitted.plan.architecture):
        limits["more would take too long on a CPU"] = most // voxels
    largest = max(SMALLEST_BATCH, min(limits.values()))
    batch = SMALLEST_BATCH
    while batch < largest and fitted.memory.step_bytes(batch + 1, on_gpu=budget.on_gpu) <= budget.size_bytes:
        batch += 1
    if batch < largest:
        return batch, "more would not fit into the memory budget"
    reason = min(limits, key=lambda name: limits[name])
    return batch, reason if batch > SMALLEST_BATCH else f"the smallest batch that is used, since {reason}"


def _two(memory: StepMemory, budget: MemoryBudget) -> int:
    return memory.step_bytes(SMALLEST_BATCH, on_gpu=budget.on_gpu)


def _is_quick(plan: ModelPlan, budget: MemoryBudget) -> bool:
    most = budget.most_voxels.get(plan.architecture)
    return most is None or SMALLEST_BATCH * math.prod(plan.patch) <= most


def _shorten(draft: Draft, plan: ModelPlan) -> ModelPlan | None:
    """The draft with one axis shorter; None where no axis can be.

    The shorter patch may divide more finely; then that step is taken (nnU-Net: 224 lies between 256 and 192).
    """
    relative = [
        (length / size, axis) for axis, (length, size) in enumerate(zip(plan.patch, plan.median_shape, strict=True))
    ]
    for _, axis in sorted(relative, reverse=True):
        trial = _without(plan.patch, axis, divisor_of(plan)[axis])
        if trial is None:
            continue
        fine = _without(plan.patch, axis, divisor_of(draft(trial))[axis])
        shorter = draft(fine or trial)
        if math.prod(shorter.patch) < math.prod(plan.patch):
            return shorter
    return None


def _without(patch: tuple[int, ...], axis: int, step: int) -> tuple[int, ...] | None:
    length = patch[axis] - step
    return (*patch[:axis], length, *patch[axis + 1 :]) if length >= 1 else None
