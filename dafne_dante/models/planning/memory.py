"""How much memory a training step takes, told without taking it.

Terms: a *step* is forward, loss, backward and AdamW, in float32. A tensor is *saved* when the backward pass needs it.

How: the network runs on torch's meta device, where tensors have sizes but no values, and autograd tells what it saves.
In 2D it runs for real on the smallest slice that it takes, and what it saves is scaled: the meta device loads PyTorch's
compiler and a computer algebra system, 70 MiB, more than a 2D step takes. On top of that come the weights, the loss and
what an allocator cannot use again; how much was measured on real steps (benchmarks/plan_memory.py), and the estimate
lies above every measurement.

Invariants: nothing of the patch's size is allocated; saved memory is proportional to the batch size; no random number
of the process is used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dafne_dante.models.build import build_network, build_on_meta
from dafne_dante.models.plan import ModelPlan

__all__ = ["StepMemory", "measure_step"]

_FLOAT_BYTES = 4
_WEIGHT_COPIES = 6
"""Weights, gradients, AdamW's two moments, the best epoch's weights and their running mean."""
_LARGE_BLOCK = 32 << 20
"""From here on glibc takes a block from the system and gives it back; smaller ones leave gaps that are not refilled."""


@dataclass(frozen=True)
class _Factors:
    """Memory of a step as a sum: what is there at its start, and so much of each kind of bytes."""

    start: int
    small: float
    large: float
    largest: float
    logits: float


_ON_CPU = _Factors(start=60 * 10**6, small=2.9, large=1.1, largest=1.6, logits=3.0)
"""Above all steps that were measured, by a tenth, since memory still grows by that over some ten steps."""
_ON_GPU = _Factors(start=10**9, small=1.3, large=1.3, largest=3.0, logits=10.0)
"""Not calibrated: what PyTorch's allocator leaves unused, cuDNN's workspace and the copies of the loss, all guessed."""


@dataclass(frozen=True)
class StepMemory:
    """What a network keeps for a step of one patch.

    Attributes:
        saved_bytes: of each saved tensor.
        weight_bytes: of all parameters.
        logit_bytes: of the network's output.
    """

    saved_bytes: tuple[int, ...]
    weight_bytes: int
    logit_bytes: int

    def step_bytes(self, batch_size: int, *, on_gpu: bool) -> int:
        """Peak memory of a step with `batch_size` patches, beyond that of a process with its libraries loaded."""
        factors = _ON_GPU if on_gpu else _ON_CPU
        saved = [size * batch_size for size in self.saved_bytes]
        small = sum(size for size in saved if size < _LARGE_BLOCK)
        return int(
            factors.start
            + _WEIGHT_COPIES * self.weight_bytes
            + factors.small * small
            + factors.large * (sum(saved) - small)
            + factors.largest * max(saved)
            + factors.logits * self.logit_bytes * batch_size
        )


def measure_step(plan: ModelPlan) -> StepMemory:
    """What the plan's network saves for one patch; DamagedModelError where no network can be built from the plan."""
    if plan.dimensions == 3:
        image = torch.zeros(1, plan.in_channels, *plan.patch, device="meta")
        return _measure(build_on_meta(plan).train(), image, lambda tensor: tensor.untyped_storage().nbytes())
    side = 2**plan.levels  # two pixels wide at the bottom: an instance of one has no norm
    growth = math.prod(plan.patch) / side**2

    def scaled(tensor: Tensor) -> int:
        size = tensor.untyped_storage().nbytes()
        return int(size * growth) if tensor.dim() == 4 else size

    with torch.random.fork_rng(devices=[]):
        network = build_network(plan).train()
    return _measure(network, torch.zeros(1, plan.in_channels, side, side), scaled)


def _measure(network: nn.Module, image: Tensor, size_of: Callable[[Tensor], int]) -> StepMemory:
    parameters = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    saved: dict[int, Tensor] = {}  # holds the tensors, so that no storage's address is used twice

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage()._cdata
        if address not in parameters:
            saved.setdefault(address, tensor)
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits: Tensor = network(image)
    return StepMemory(
        saved_bytes=tuple(size_of(tensor) for tensor in saved.values()),
        weight_bytes=_FLOAT_BYTES * sum(parameter.numel() for parameter in network.parameters()),
        logit_bytes=size_of(logits),
    )
