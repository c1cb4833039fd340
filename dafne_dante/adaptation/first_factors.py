"""The factors that a low-rank update starts from: A spans what the weight already does most, B is zero.

With B = 0 the update is nothing at first; with A = the leading left singular vectors of the base weight ("ortho",
SCIENCE: after PiSSA, arXiv 2404.02948, and OLoRA) the first steps move the directions that carry the layer, and the
update stays A B of exactly rank r, which PiSSA itself does not give.

Invariants: no random number is drawn; A's columns are orthonormal, also where the weight has a smaller rank; each
column's largest entry is positive, so that the sign does not depend on the linear algebra library.
"""

import torch
from torch import Tensor

from dafne_dante.adaptation.low_rank import Form, LowRank, factor_shapes
from dafne_dante.errors import TrainingError

__all__ = ["first_factors", "leading_directions"]


def first_factors(weight: Tensor, *, form: Form, rank: int, scale: float) -> LowRank:
    """Start of a rank-r update of `weight` (O, I, *kernel), r <= O: A orthonormal, B zero; dtype and device of weight.

    Raises:
        TrainingError: the weight holds something that is not a finite number.
    """
    rows, columns = weight.shape[:2]
    taps = weight.reshape(rows, columns, -1)
    matrix = taps.permute(2, 0, 1) if form == "lora-channel" else taps.flatten(1)
    _, b_shape = factor_shapes(form, tuple(weight.shape), rank)
    return LowRank(form, leading_directions(matrix, rank).to(weight), weight.new_zeros(b_shape), scale)


def leading_directions(matrix: Tensor, count: int) -> Tensor:
    """First `count` left singular vectors (..., O, count) of `matrix` (..., O, N), float32 on the CPU; count <= O.

    They are the eigenvectors of M M^T (O x O), several times cheaper than a singular value decomposition because a
    convolution has N >> O; past the rank of M they go on as an orthonormal completion.

    Raises:
        TrainingError: the matrix holds something that is not a finite number.
    """
    flat = matrix.detach().to(device="cpu", dtype=torch.float32)
    if not torch.isfinite(flat).all():
        raise TrainingError("expected finite weights, found NaN or infinity; choose another base model")
    _, vectors = torch.linalg.eigh(flat @ flat.mT)  # eigenvalues ascend
    leading: Tensor = vectors[..., -count:].flip(-1)
    largest = leading.gather(-2, leading.abs().argmax(dim=-2, keepdim=True))
    return torch.where(largest < 0, -leading, leading)
