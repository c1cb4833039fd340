"""How long a stored update is, and whether it is finite, found from its stored numbers.

Terms: a stored int8 number q of a row with scale c means q * c (`delta.precision`), so the row's squares sum to
c^2 * sum q^2, and no number of the row is beyond 128 |c|.

Invariants: nothing is said to be finite that is not so in float32, as a dense update; a length is right to 1e-6 of it;
of a dense int8 update the float32 form is not built, unless its scales alone cannot tell that it is finite.
"""

from collections.abc import Mapping
from math import isfinite, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dafne_dante.adaptation.low_rank import FORMS, LowRank
from dafne_dante.delta.container import StoredTensor
from dafne_dante.delta.difference import WeightUpdate, factor_norm, is_finite
from dafne_dante.delta.naming import parts_of, rows_name, shown, stored_name
from dafne_dante.delta.outline import Outline
from dafne_dante.delta.precision import restore, row_count
from dafne_dante.errors import DeltaValueError

__all__ = ["measured_length", "restored"]

_LARGEST = torch.finfo(torch.float32).max
_LARGEST_INT8 = 128
# A sum of as many squares of int8, taken in 16 lanes or more as BLAS does, is exact in each lane (below 2^24).
_ROW_PIECE = 1 << 14
_BLOCK_NUMBERS = 1 << 17


def measured_length(outline: Outline, tensors: Mapping[str, StoredTensor]) -> float:
    """L2 norm of the dense form, after its numbers were found finite in float32.

    Args:
        outline: of the update; its shapes are those of its tensors.
        tensors: by stored name, those of the update among them.

    Raises:
        DeltaValueError: a number is not finite, or its product would not be.
    """
    if outline.kind in FORMS:
        return _factors_length(outline, tensors)
    name = stored_name(outline.weight, "d")
    if tensors[name].dtype == "I8":
        return _int8_length(outline, tensors)
    length = factor_norm(tensors[name].to_tensor())
    # A square of float32 is finite in double precision, and a sum of them is finite only if each is.
    if not isfinite(length):
        raise _not_finite(name)
    return length


def restored(outline: Outline, tensors: Mapping[str, StoredTensor]) -> WeightUpdate:
    """The update in float32; `tensors` as in `measured_length`."""
    empty = torch.empty(0)
    kind = outline.kind
    like: Tensor | LowRank = LowRank(kind, empty, empty, outline.scale) if kind in FORMS else empty
    return restore(outline.weight, tensors, WeightUpdate(outline.weight, like))


def _int8_length(outline: Outline, tensors: Mapping[str, StoredTensor]) -> float:
    name = stored_name(outline.weight, "d")
    scales = np.abs(np.frombuffer(tensors[rows_name(name)].content, "<f4").astype(np.float64))
    highest = float(scales.max())
    if not isfinite(highest):
        raise _not_finite(rows_name(name))
    if highest * _LARGEST_INT8 > _LARGEST and not _is_finite_dense(outline, tensors):
        raise _overflow(outline.weight)
    numbers = np.frombuffer(tensors[name].content, "i1").reshape(row_count("dense", outline.shapes[0]), -1)
    return sqrt(float(np.dot(scales * scales, _row_squares(numbers))))


def _is_finite_dense(outline: Outline, tensors: Mapping[str, StoredTensor]) -> bool:
    value = restored(outline, tensors).value
    return isinstance(value, Tensor) and is_finite(value)


def _row_squares(numbers: NDArray[np.int8]) -> NDArray[np.float64]:
    """For each row of `numbers` (R, N) the sum of its squares, in pieces that fit a processor's cache."""
    rows, columns = numbers.shape
    squares = np.zeros(rows)
    for left in range(0, columns, _ROW_PIECE):
        step = max(1, _BLOCK_NUMBERS // min(columns - left, _ROW_PIECE))
        for top in range(0, rows, step):
            part = numbers[top : top + step, left : left + _ROW_PIECE].astype(np.float32)
            squares[top : top + step] += np.matmul(part[:, None, :], part[:, :, None])[:, 0, 0]
    return squares


def _factors_length(outline: Outline, tensors: Mapping[str, StoredTensor]) -> float:
    for part in parts_of(outline.kind):
        name = stored_name(outline.weight, part)
        floating = name if tensors[name].dtype != "I8" else rows_name(name)
        if not is_finite(tensors[floating].to_tensor()):
            raise _not_finite(floating)
    value = restored(outline, tensors).value
    assert isinstance(value, LowRank)
    if not _stays_finite(value):
        raise _overflow(outline.weight)
    return factor_norm(value)


def _stays_finite(value: LowRank) -> bool:
    """Whether the product is finite however its sums are ordered: |s| r max|A| max|B| is a bound of every step."""
    highest_a, highest_b = float(value.a.abs().max()), float(value.b.abs().max())
    return max(1.0, abs(value.scale)) * value.rank * highest_a * highest_b <= _LARGEST and highest_a <= _LARGEST


def _not_finite(stored: str) -> DeltaValueError:
    return DeltaValueError(f"expected finite numbers in {shown(stored)}, found NaN or infinity")


def _overflow(weight: str) -> DeltaValueError:
    return DeltaValueError(f"expected an update of {shown(weight)} within float32, found one that overflows")
