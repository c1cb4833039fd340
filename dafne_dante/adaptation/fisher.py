"""How much each number of a network matters for what it was shown: the diagonal of the Fisher information.

Estimated as the mean over batches of the squared gradient of the loss (the empirical Fisher information), and scaled
so that the mean over all numbers is 1. A few numbers matter thousands of times more than the others; what passes 100 is
cut there, since a number that is held 100 times as firmly as the mean does not move.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["fisher_diagonal"]

_MOST = 100.0


def fisher_diagonal(parameters: Sequence[nn.Parameter], losses: Sequence[Tensor]) -> list[Tensor]:
    """One tensor a parameter, in its shape and dtype; all 1 where no loss has a gradient.

    Args:
        losses: of a few batches, each with its graph, which is used up.
    """
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    for loss in losses:
        gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
        for square, gradient in zip(squares, gradients, strict=True):
            if gradient is not None:
                square.add_(gradient.detach().square())
    count = sum(square.numel() for square in squares)
    mean = float(sum(float(square.sum()) for square in squares)) / count
    if mean == 0:
        return [torch.ones_like(square) for square in squares]
    return [(square / mean).clamp(max=_MOST) for square in squares]
