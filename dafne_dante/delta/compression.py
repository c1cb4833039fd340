"""Updates made smaller by leaving out what carries little of them: truncated singular value decomposition.

Terms: a *residual* is the L2 distance between the dense forms before and after, over the length of the one before, for
each weight by itself. A weight (O, I, *kernel) is taken as a matrix (O, I * K); what comes back is `lora-shared`
(`lora-linear` for a matrix) of the lowest rank whose residual is allowed, A and B balanced so that both are stored
equally well.

Invariants: an update comes back as it is where the lower rank would not take fewer bytes, where it is a vector, and
where its form is `lora-channel` (its taps are decomposed already); a residual of 0 changes nothing.
"""

from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor

from dafne_dante.adaptation.low_rank import Form, LowRank
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.errors import DeltaValueError

__all__ = ["compressed"]


def compressed(updates: Iterable[WeightUpdate], residual: float) -> tuple[WeightUpdate, ...]:
    """The updates, each at the lowest rank whose residual is at most `residual`, 0 to below 1; float32 on the CPU.

    Raises:
        DeltaValueError: the residual is out of its range, or an update is not finite.
    """
    if not 0 <= residual < 1:
        raise DeltaValueError(f"expected a residual from 0 to below 1, found {residual}")
    return tuple(_compressed(update, residual) if residual else update for update in updates)


def _compressed(update: WeightUpdate, residual: float) -> WeightUpdate:
    value = update.value
    if isinstance(value, LowRank):
        if value.form == "lora-channel":
            return update
        found = _decomposed_product(update.weight, value)
        held = value.a.numel() + value.b.numel()
        form: Form = value.form
    else:
        if value.dim() < 2:
            return update
        found = _decomposed(update.weight, value.detach().reshape(value.shape[0], -1).double())
        held = value.numel()
        form = "lora-linear" if value.dim() == 2 else "lora-shared"
    left, sizes, right = found
    rank = _rank(sizes, residual)
    if not rank or rank * (left.shape[0] + right.shape[1]) >= held:
        return update
    root = sizes[:rank].sqrt()
    a, b = left[:, :rank] * root, root[:, None] * right[:rank]
    return WeightUpdate(update.weight, LowRank(form, a.float().contiguous(), b.float().contiguous(), 1.0))


def _rank(sizes: Tensor, residual: float) -> int:
    """The lowest rank whose left-out singular values are within the residual; 0 for an update that is zero."""
    squares = sizes.square()
    whole = float(squares.sum())
    if whole == 0:
        return 0
    left_out = squares.flip(0).cumsum(0).flip(0)  # what a rank of 0, 1, 2, ... leaves out
    return int((left_out > residual**2 * whole).sum())


def _decomposed(weight: str, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors (O, n), values (n,) and vectors (n, N), largest first, by the smaller Gram matrix.

    Convolutions are wide (N = I * K >> O), so that eigenvectors of M M^T are many times cheaper; double precision
    keeps what squaring loses far below float16.
    """
    if not torch.isfinite(matrix).all():
        raise DeltaValueError(f"expected a finite update of {weight[:120]}, found NaN or infinity")
    turned = matrix.shape[0] > matrix.shape[1]
    wide = matrix.mT if turned else matrix
    values, vectors = torch.linalg.eigh(wide @ wide.mT)
    sizes = values.flip(0).clamp(min=0).sqrt()
    left = vectors.flip(1)
    right = left.mT @ wide / sizes.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    right = torch.where(sizes[:, None] > 1e-12 * sizes[0], right, 0.0)
    return (right.mT, sizes, left.mT) if turned else (left, sizes, right)


def _decomposed_product(weight: str, value: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """The same for a product of factors, without building it."""
    outer, inner = value.a.detach().double(), value.b.detach().double() * value.scale
    if not (torch.isfinite(outer).all() and torch.isfinite(inner).all()):
        raise DeltaValueError(f"expected finite factors of {weight[:120]}, found NaN or infinity")
    orthogonal_a, triangular_a = torch.linalg.qr(outer)
    orthogonal_b, triangular_b = torch.linalg.qr(inner.mT)
    left, sizes, right = _decomposed(weight, triangular_a @ triangular_b.mT)
    count = min(prod(triangular_a.shape[:1]), prod(triangular_b.shape[:1]))
    return orthogonal_a @ left[:, :count], sizes[:count], right[:count] @ orthogonal_b.mT
