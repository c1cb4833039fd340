"""Why a plan is as it is, in sentences with numbers."""

from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.planning.budget import MemoryBudget
from dafne_dante.models.planning.fitting import SMALLEST_BATCH, Fitted, divisor_of
from dafne_dante.models.planning.wording import AXES, gigabytes, number, times

__all__ = ["explain_channels", "explain_depth", "explain_memory", "explain_patch"]


def explain_patch(fitted: Fitted, budget: MemoryBudget) -> str:
    """Why the patch is neither larger nor smaller."""
    plan, wish = fitted.plan, fitted.wish
    images = f"the median image has {times(plan.median_shape)} voxels ({_axes(plan)}) at this spacing"
    if any(
        size <= median - step
        for size, median, step in zip(wish.patch, plan.median_shape, divisor_of(plan), strict=True)
    ):
        images += f", of which a patch takes {times(wish.patch)} at most"
    steps = f"the network takes multiples of {times(divisor_of(plan))}{_floor(plan)}"
    if fitted.bound == "images":
        return f"{times(plan.patch)} because {images}, and {steps}"
    if fitted.bound == "memory":
        limit = (
            f"{SMALLEST_BATCH} patches of {times(wish.patch)} would take {gigabytes(wish.step_bytes)} of the "
            f"{gigabytes(budget.size_bytes)} that may be used"
        )
    else:
        limit = f"a step with more than {budget.most_voxels[plan.architecture]} voxels takes too long on a CPU"
    return f"{times(plan.patch)} because {images}, but {limit}; {steps}"


def explain_depth(plan: ModelPlan) -> str:
    """Why it has so many levels or stages, and how wide the deepest feature map is."""
    if plan.architecture == "dynunet":
        bottom = [size // step for size, step in zip(plan.patch, divisor_of(plan), strict=True)]
        return (
            f"{len(plan.strides)} stages because every axis is halved while 4 voxels remain ({times(bottom)} at the "
            f"bottom) and while its voxels are less than twice as long as the finest; {_kernels(plan)}"
        )
    bottom = [size // 2 ** (plan.levels - 2) for size in plan.patch[-2:]]
    if plan.dimensions == 3:
        more = "a fifth needs patches of 64 in plane" if plan.levels < 5 else "more are not used"
    elif min(bottom) < 16:
        more = "one more would leave less than 8"
    else:
        more = "one more would need over 512 channels"
    return f"{plan.levels} levels because they leave {times(bottom)} voxels in plane at the bottom, and {more}"


def explain_channels(plan: ModelPlan, *, on_gpu: bool) -> str:
    """Why the first level has so many channels."""
    if plan.architecture == "dynunet":
        return "32, then twice as many a stage, up to 320: stock Dafne builds every 3D DynUNet so"
    device = "a GPU" if on_gpu else "a CPU, where twice as many take four times as long"
    return f"{plan.first_channels}, then twice as many a level, for {device}"


def explain_memory(estimated_bytes: int, budget: MemoryBudget) -> str:
    """What a step takes, and what it may."""
    estimate = f"a training step takes up to {gigabytes(estimated_bytes)}"
    note = " (not calibrated on GPUs)" if budget.on_gpu else ""
    return f"{estimate}{note} of {gigabytes(budget.size_bytes)}: {budget.why}"


def _axes(plan: ModelPlan) -> str:
    return " x ".join(AXES[-len(plan.patch) :])


def _floor(plan: ModelPlan) -> str:
    """Where small images are padded, up to what."""
    if all(
        size < median + step for size, median, step in zip(plan.patch, plan.median_shape, divisor_of(plan), strict=True)
    ):
        return ""
    return " and at least 16 along two axes" if plan.architecture == "dynunet" else " and at least 16"


def _kernels(plan: ModelPlan) -> str:
    """Which axes have kernels of 1, and how long."""
    parts = []
    for axis, name in enumerate(AXES):
        narrow = sum(kernel[axis] == 1 for kernel in plan.kernels)
        if narrow:
            ratio = plan.spacing_mm[axis] / min(plan.spacing_mm)
            stages = "the first stage" if narrow == 1 else f"the first {narrow} stages"
            because = "one voxel is all there is" if plan.patch[axis] == 1 else (
                f"its voxels are {number(ratio)} times as long at first"
            )  # fmt: skip
            parts.append(f"kernels are 1 along {name} in {stages}, because {because}")
    return "; ".join(parts) or "kernels are 3 along all axes"
