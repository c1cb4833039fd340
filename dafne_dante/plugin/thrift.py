"""What to do without when memory is short: half the batch, then smaller patches, then no GPU.

Invariants: a patch stays a multiple of what the network halves, on every axis, and no axis falls below two such
steps; the network, its grid and its weights are as before, only what it sees at once in training is less.
"""

import math
from dataclasses import dataclass, replace

from dafne_dante.models.plan import ModelPlan

__all__ = ["Thrift"]

_MOST_HALVINGS = 3


@dataclass(frozen=True)
class Thrift:
    """How much is seen at once.

    Attributes:
        batch_size: patches in a step.
        halvings: how often the longest axis of the patch was halved.
        on_cpu: whether the GPU is left alone.
    """

    batch_size: int = 2
    halvings: int = 0
    on_cpu: bool = False

    def plan_to_train_by(self, plan: ModelPlan) -> ModelPlan:
        """The same network with the smaller patch."""
        patch = list(plan.patch)
        multiples = _multiples(plan)
        for _ in range(self.halvings):
            axis = max(range(len(patch)), key=lambda one: patch[one] / multiples[one])
            half = patch[axis] // 2 // multiples[axis] * multiples[axis]
            if half < 2 * multiples[axis]:
                break
            patch[axis] = half
        return replace(plan, patch=tuple(patch))

    def next(self, *, on_gpu: bool) -> "Thrift | None":
        """What to try after this one failed; None where nothing is left. `on_gpu`: whether the device is one."""
        if self.batch_size > 1:
            return replace(self, batch_size=self.batch_size // 2)
        if self.halvings < _MOST_HALVINGS:
            return replace(self, halvings=self.halvings + 1)
        return Thrift(on_cpu=True) if on_gpu and not self.on_cpu else None

    @property
    def words(self) -> str:
        """For a person."""
        smaller = f" with {100 / 2**self.halvings:g} % of the voxels" if self.halvings else ""
        where = " on the processor" if self.on_cpu else ""
        return f"batches of {self.batch_size} patch{'es' if self.batch_size > 1 else ''}{smaller}{where}"


def _multiples(plan: ModelPlan) -> tuple[int, ...]:
    """What each axis of a patch must be a multiple of."""
    if plan.strides:
        return tuple(math.prod(stride[axis] for stride in plan.strides) for axis in range(len(plan.patch)))
    return (2 ** max(0, plan.levels - 1),) * len(plan.patch)
