"""What moved: the difference between a tuned model and its base, weight by weight.

Terms: an *update* says how one weight moved, either densely (dW in the weight's own shape) or as low-rank factors
(`adaptation.low_rank`); its *dense form* is dW in float32; the *length* of updates is the L2 norm over all of their
dense forms, and the *relative* length is that over the length of the base's floating-point weights.

Invariants: a weight has at most one update; integer buffers have none; weights that did not move have none; neither
argument of any function here is written to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt

import torch
from torch import Tensor

from dafne_dante.adaptation.low_rank import LowRank, rebuild
from dafne_dante.delta.naming import shown
from dafne_dante.delta.outline import Outline, check_outline
from dafne_dante.errors import DeltaShapeError, DeltaValueError
from dafne_dante.models.known_weights import KnownWeights
from dafne_dante.types import Weights

__all__ = [
    "WeightUpdate",
    "apply_updates",
    "check_fit",
    "dense_value",
    "factor_norm",
    "is_finite",
    "outline_of",
    "relative_length",
    "relative_norm",
    "take_difference",
    "update_norm",
    "weights_length",
]

_NORM_PIECE = 1 << 14
# As many squares as a piece has, each below the lowest normal float32 (1.2e-38), sum to less than 1e-13 of it.
_LOWEST_SQUARE = 1e-20


@dataclass(frozen=True, eq=False)
class WeightUpdate:
    """How one weight moved.

    Attributes:
        weight: state-dict name.
        value: dW in the weight's shape (O, I, *kernel), or the factors of it; floating point, on the CPU.
    """

    weight: str
    value: Tensor | LowRank


def take_difference(base: Weights, tuned: Weights, factors: Mapping[str, LowRank]) -> tuple[WeightUpdate, ...]:
    """The updates that lead from `base` to `tuned`, in the order of the base.

    Args:
        base, tuned: the same names, shapes and dtypes. A name that stands for another's tensor (an alias) should be
            left out of both, or it is sent twice.
        factors: weight name to the low-rank update that made its difference; such a weight is not compared, unless
            its product is zero everywhere.

    Raises:
        DeltaShapeError: names, shapes or dtypes differ, or factors do not fit their weight.
        DeltaValueError: a tuned weight or a factor is not finite.
    """
    _check_same_grid(base, tuned)
    if unknown := sorted(factors.keys() - base.keys()):
        raise DeltaShapeError(f"expected factors of the base's weights only, found some of {shown(unknown[0])}")
    found = (_difference_of(name, base[name], tuned[name], factors.get(name)) for name in base)
    return tuple(update for update in found if update is not None)


def apply_updates(base: Weights, updates: Iterable[WeightUpdate], *, step: float = 1.0) -> dict[str, Tensor]:
    """`base + step * dW`: new tensors under all of the base's names, in the base's order and dtypes.

    The sum is taken in float32 (float64 where the base is), then rounded to the base's dtype. Aliases of an updated
    weight do not follow it; see `models.build.tie_aliases`.

    Raises:
        DeltaShapeError: a weight is unknown, an integer buffer or updated twice, or an update does not fit.
        DeltaValueError: the step or a sum is not finite in the base's dtype.
    """
    if not isfinite(step):
        raise DeltaValueError("expected a finite step, found NaN or infinity")
    moved_by = {update.weight: update for update in _unique(updates)}
    for name in moved_by:
        _target(base, name)
    return {name: _moved(tensor.detach(), moved_by.get(name), step) for name, tensor in base.items()}


def _moved(target: Tensor, update: WeightUpdate | None, step: float) -> Tensor:
    """The tensor after its update, a new one in any case."""
    if update is None:
        return target.clone()
    precise = torch.promote_types(target.dtype, torch.float32)
    change = dense_value(update, tuple(target.shape)).to(precise)
    moved = torch.add(target.to(precise), change, alpha=step).to(target.dtype)
    if not is_finite(moved):
        raise DeltaValueError(f"expected finite weights after the update, found others in {shown(update.weight)}")
    return moved


def is_finite(tensor: Tensor) -> bool:
    """Whether it holds neither NaN nor infinity: one pass that allocates nothing; a NaN is both lowest and highest."""
    if not tensor.numel():
        return True
    lowest, highest = torch.aminmax(tensor.detach())
    return isfinite(float(lowest)) and isfinite(float(highest))


def dense_value(update: WeightUpdate, shape: tuple[int, ...]) -> Tensor:
    """The dense form: dW in `shape` (O, I, *kernel), float32, on the CPU.

    Raises:
        DeltaShapeError: the update does not fit a weight of that shape.
    """
    check_fit(update, shape)
    value = update.value
    if isinstance(value, LowRank):
        return rebuild(LowRank(value.form, _float32(value.a), _float32(value.b), value.scale), shape)
    return _float32(value)


def check_fit(update: WeightUpdate, shape: tuple[int, ...]) -> None:
    """Do nothing when the update fits a weight of `shape` (O, I, *kernel); DeltaShapeError as `check_outline`."""
    check_outline(outline_of(update), shape)


def outline_of(update: WeightUpdate) -> Outline:
    """The update without its numbers."""
    value = update.value
    if isinstance(value, LowRank):
        return Outline(update.weight, value.form, (tuple(value.a.shape), tuple(value.b.shape)), float(value.scale))
    return Outline(update.weight, "dense", (tuple(value.shape),))


def update_norm(updates: Iterable[WeightUpdate], base: Weights) -> float:
    """The length of the updates; DeltaShapeError where one does not fit the base."""
    squares = 0.0
    for update in _unique(updates):
        check_fit(update, tuple(_target(base, update.weight).shape))
        squares += factor_norm(update.value) ** 2
    return sqrt(squares) if isfinite(squares) else inf


def relative_norm(updates: Iterable[WeightUpdate], base: Weights) -> float:
    """The length of the updates over that of the base's floating-point weights; infinite where the base is zero.

    Raises:
        DeltaShapeError: an update does not fit the base.
    """
    return relative_length(update_norm(updates, base), base)


def relative_length(length: float, base: Weights) -> float:
    """A length of updates over that of the base's floating-point weights; infinite where the base is zero."""
    if length == 0:
        return 0.0
    whole = weights_length(base)
    return length / whole if whole > 0 else inf


def weights_length(weights: Weights) -> float:
    """L2 norm over the floating-point weights; of known weights found only once."""
    if isinstance(weights, KnownWeights) and weights.length is not None:
        return weights.length
    length = sqrt(sum(factor_norm(tensor) ** 2 for tensor in weights.values() if tensor.is_floating_point()))
    if isinstance(weights, KnownWeights):
        weights.length = length
    return length


def factor_norm(value: Tensor | LowRank) -> float:
    """L2 norm of one dense form, right to 1e-6; of factors without building it: |AB|^2 = sum (A^T A) * (B B^T)."""
    if not isinstance(value, LowRank):
        return _norm(value.detach().reshape(-1))
    a, b = value.a.detach().double(), value.b.detach().double()
    square = float((a.mT @ a * (b @ b.mT)).sum())
    # Cancellation can leave a tiny negative number where the product is zero.
    return abs(value.scale) * sqrt(max(square, 0.0)) if isfinite(square) else inf


def _norm(numbers: Tensor) -> float:
    """In pieces that fit a processor's cache, each to 1e-6 of its square; their sum is in double precision."""
    return sqrt(sum(_square(piece) for piece in torch.split(numbers, _NORM_PIECE)))


def _square(piece: Tensor) -> float:
    """In float32 where what is lost below its normal numbers, or would be above, cannot matter; else in double."""
    if piece.dtype == torch.float32:
        found = float(torch.dot(piece, piece))
        if _LOWEST_SQUARE <= found < inf:
            return found
    precise = piece.double()
    return float(torch.dot(precise, precise))


def _difference_of(name: str, base: Tensor, tuned: Tensor, factors: LowRank | None) -> WeightUpdate | None:
    if not base.is_floating_point():
        return None
    if not torch.isfinite(tuned).all():
        raise DeltaValueError(f"expected finite tuned weights, found others in {shown(name)}; train again")
    if factors is not None:
        update = WeightUpdate(name, _copy(factors))
        change = dense_value(update, tuple(base.shape))
        if not torch.isfinite(change).all():
            raise DeltaValueError(f"expected finite factors, found others for {shown(name)}; train again")
        if change.any():
            return update
    if torch.equal(base, tuned):
        return None
    precise = torch.promote_types(base.dtype, torch.float32)
    dense = (tuned.detach().to(precise) - base.detach().to(precise)).to("cpu", torch.float32)
    return WeightUpdate(name, dense.contiguous())


def _copy(factors: LowRank) -> LowRank:
    a, b = (factor.detach().to("cpu", torch.float32).clone().contiguous() for factor in (factors.a, factors.b))
    return LowRank(factors.form, a, b, factors.scale)


def _check_same_grid(base: Weights, tuned: Weights) -> None:
    if different := sorted(base.keys() ^ tuned.keys()):
        raise DeltaShapeError(
            f"expected the base's {len(base)} weights, found {len(tuned)}; only one has {shown(different[0])}"
        )
    for name, tensor in base.items():
        found = tuned[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise DeltaShapeError(
                f"expected {shown(name)} as {tuple(tensor.shape)} {tensor.dtype}, "
                f"found {tuple(found.shape)} {found.dtype}"
            )


def _unique(updates: Iterable[WeightUpdate]) -> Sequence[WeightUpdate]:
    by_name: dict[str, WeightUpdate] = {}
    for update in updates:
        if update.weight in by_name:
            raise DeltaShapeError(f"expected one update of {shown(update.weight)}, found two")
        by_name[update.weight] = update
    return tuple(by_name.values())


def _target(base: Weights, name: str) -> Tensor:
    target = base.get(name)
    if target is None or not target.is_floating_point():
        what = "no such weight" if target is None else f"a buffer of {target.dtype}"
        raise DeltaShapeError(f"expected {shown(name)} to be a floating-point weight of the base, found {what}")
    return target


def _float32(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32)
