"""How much memory a training step may take: what somebody said, or what the machine has to spare.

Terms: a gigabyte (GB) is 10^9 bytes. A budget is *given* when a person said it, else *found*.

Invariants: a found budget leaves half of what is free to the images, which are held as well, and to other programs;
inside a container its limit counts, not the machine's memory; on a CPU it is also bounded, with the size of a batch,
since there time runs out before memory does. A given budget is taken as it is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from dafne_dante.errors import TrainingError
from dafne_dante.models.plan import Architecture
from dafne_dante.models.planning.free_memory import free_bytes
from dafne_dante.models.planning.wording import gigabytes, number

__all__ = ["MemoryBudget", "find_budget", "give_budget"]

_SHARE = 0.5
_SHARE_OF_GPU = 0.85
_MOST_ON_CPU = 4 * 10**9
_ASSUMED = 2 * 10**9
_MOST_GB = 10_000
_VOXELS_ON_CPU: Mapping[Architecture, int] = MappingProxyType(
    {"unet2d": 4 * 256 * 256, "unet3d": 2 * 32 * 64 * 64, "dynunet": 2 * 16 * 64 * 64}
)
"""Voxels of a batch that take a few seconds a step on one core; a DynUNet has twice the channels of a U-Net."""


@dataclass(frozen=True)
class MemoryBudget:
    """What a training step may take.

    Attributes:
        size_bytes: peak memory of a step beyond that of the program itself.
        on_gpu: of the GPU; else of the machine.
        why: where the number comes from, in words.
        most_voxels: of a batch, by architecture; empty where only memory counts.
    """

    size_bytes: int
    on_gpu: bool
    why: str
    most_voxels: Mapping[Architecture, int] = field(default_factory=dict)


def give_budget(gigabytes_given: float, *, on_gpu: bool) -> MemoryBudget:
    """The budget that a person gives; TrainingError for one that is not a positive number."""
    if not (math.isfinite(gigabytes_given) and 0 < gigabytes_given <= _MOST_GB):
        raise TrainingError(f"expected a memory budget above 0 and up to {_MOST_GB} GB, found {gigabytes_given:g}")
    return MemoryBudget(int(gigabytes_given * 1e9), on_gpu, f"{number(gigabytes_given)} GB were given")


def find_budget(device: torch.device | None = None) -> MemoryBudget:
    """The budget for training on this device, now; without one on the first GPU, or where there is none the CPU."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        unused, _ = torch.cuda.mem_get_info(device)
        why = f"{_SHARE_OF_GPU:.0%} of the {gigabytes(unused)} that are free on the GPU"
        return MemoryBudget(int(_SHARE_OF_GPU * unused), True, why)
    free = free_bytes()
    if free is None:
        return MemoryBudget(
            _ASSUMED, False, f"{gigabytes(_ASSUMED)}, since this system does not tell what is free", _VOXELS_ON_CPU
        )
    size = min(int(_SHARE * free), _MOST_ON_CPU)
    why = f"half of the {gigabytes(free)} that are free here"
    if size == _MOST_ON_CPU:
        why = f"no more of the {gigabytes(free)} that are free, since on a CPU time runs out before memory does"
    return MemoryBudget(size, False, why, _VOXELS_ON_CPU)
