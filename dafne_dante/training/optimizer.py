"""AdamW as PyTorch has it, without PyTorch's compiler, which it loads to be told not to compile.

The wrappers around an optimizer's methods import `torch._dynamo` when first called: some 70 MiB and two seconds, as
much as a small network takes to train. Nothing here is compiled, so the functions that they wrap are called directly.

Invariants: the same numbers as `torch.optim.AdamW`; where a PyTorch has no such wrappers, it is the same class.
"""

import inspect
from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["UncompiledAdamW", "adamw"]

_FUSED = ("cpu", "cuda")


class UncompiledAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` with the functions behind its wrappers."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)


def adamw(groups: Iterable[dict[str, Any]], learning_rate: float) -> UncompiledAdamW:
    """AdamW over parameter groups of one device; in one kernel a tensor where PyTorch has one (a sixth of a step)."""
    groups = list(groups)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return UncompiledAdamW(groups, lr=learning_rate, fused=devices <= set(_FUSED))
