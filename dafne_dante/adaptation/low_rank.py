"""Low-rank forms of a weight update, defined on the weight tensor's own axes.

Terms: a weight W has shape (O, I, *kernel); O and I are simply its first two axes (a transposed convolution stores
its input channels first, and nothing here needs to know). K is the product of the kernel, 1 for a linear layer.

Forms, all exact and of rank r (s is the scale):
- `lora-channel`  A (K, O, r), B (K, r, I): one pair a kernel tap, dW[o, i, k] = s * sum_r A[k, o, r] B[k, r, i]
  (the channel-wise factorisation of the Dante paper, arXiv 2605.03602)
- `lora-shared`   A (O, r), B (r, I * K): one pair over channels, the kernel in B (LoRA-C, arXiv 2410.16954)
- `lora-linear`   A (O, r), B (r, I): a linear layer (LoRA, arXiv 2106.09685)
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

__all__ = ["FORMS", "LowRank", "factor_shapes", "rebuild"]

Form = Literal["lora-channel", "lora-shared", "lora-linear"]
FORMS: tuple[Form, ...] = ("lora-channel", "lora-shared", "lora-linear")


@dataclass(frozen=True, eq=False)
class LowRank:
    """Factors of one weight's update; shapes by form in the module docstring, floating point, one device."""

    form: Form
    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """r, the inner size of the product."""
        return int(self.a.shape[-1])


def factor_shapes(form: Form, weight_shape: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of A and B for a weight (O, I, *kernel) at rank r; ValueError for a linear form with a kernel."""
    rows, columns, *kernel = weight_shape
    taps = prod(kernel)
    if form == "lora-channel":
        return (taps, rows, rank), (taps, rank, columns)
    if form == "lora-linear" and kernel:
        raise ValueError(f"expected a weight (O, I) for lora-linear, found {weight_shape}")
    return (rows, rank), (rank, columns * taps)


def rebuild(low_rank: LowRank, weight_shape: tuple[int, ...]) -> Tensor:
    """The dense update s * A B in the weight's shape (O, I, *kernel); differentiable in A and B."""
    product = torch.matmul(low_rank.a, low_rank.b) * low_rank.scale
    if low_rank.form == "lora-channel":
        product = product.permute(1, 2, 0)
    return product.reshape(weight_shape)
