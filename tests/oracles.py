"""Slow and plain versions of what the package computes fast: the formulas written as loops, LoRA as two layers,
lengths of updates that were built."""

from collections.abc import Mapping
from copy import deepcopy
from math import prod

import torch
from torch import Tensor, nn

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.delta.container import StoredTensor
from dafne_dante.delta.measuring import restored
from dafne_dante.delta.outline import Outline


def slow_update(low_rank: LowRank, weight_shape: tuple[int, ...]) -> Tensor:
    """dW by the formula of each form, one number at a time, in double precision."""
    rows, columns, *kernel = weight_shape
    taps = prod(kernel)
    a, b = low_rank.a.detach().double().tolist(), low_rank.b.detach().double().tolist()
    update = torch.zeros(rows, columns, taps, dtype=torch.float64)
    for o in range(rows):
        for i in range(columns):
            for k in range(taps):
                if low_rank.form == "lora-channel":
                    terms = [a[k][o][r] * b[k][r][i] for r in range(low_rank.rank)]
                elif low_rank.form == "lora-shared":
                    terms = [a[o][r] * b[r][i * taps + k] for r in range(low_rank.rank)]
                else:
                    terms = [a[o][r] * b[r][i] for r in range(low_rank.rank)]
                update[o, i, k] = low_rank.scale * sum(terms)
    return update.reshape(weight_shape)


def two_layers(base: nn.Module, update: Tensor, inputs: Tensor) -> Tensor:
    """LoRA as the paper's code runs it: the base layer, and beside it a second one whose weight is the update."""
    beside = deepcopy(base)
    with torch.no_grad():
        beside.weight.copy_(update)
        if beside.bias is not None:
            beside.bias.zero_()
        return base(inputs) + beside(inputs)


def slow_length(outline: Outline, tensors: Mapping[str, StoredTensor]) -> float | None:
    """L2 norm in double precision of the dense form of a stored dense update, None where a number is not finite."""
    value = restored(outline, tensors).value
    assert isinstance(value, Tensor)
    stored = [tensor.to_tensor() for tensor in tensors.values()]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in (value, *stored)):
        return None
    return float(torch.linalg.vector_norm(value.double()))
