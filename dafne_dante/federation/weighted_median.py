"""The weighted median of each coordinate, one number a site, for who would rather have it than the trimmed mean.

Terms: the *median* is the number below which, and above which, at most half of the weight lies; where a number ends
exactly at half, it is the middle between it and the next. A site's weight counts up to the (lower) median of all
weights: what a site says of its cases is its word, and of five sites none then has more than a third.

Invariants: pure; the result lies between the lowest and the highest number of each coordinate, and no order of the
sites changes it; with equal weights it is the common median; memory beyond the result is bounded, by pieces of columns.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dafne_dante.federation.trimmed_mean import trimmed_mean

__all__ = ["Rule", "robust_mean", "rule_of", "weighted_median"]

Rule = Literal["trimmed", "median"]
"""How the numbers of five sites or more become one."""

_PIECE_NUMBERS = 1 << 17
# Sums of weights that differ by less are the same: they are added up in whatever order the values have.
_SAME = 1e-6

_Rows = NDArray[np.float32]


def rule_of(setting: str) -> Rule:
    """The rule that the setting `merge_rule` names, which was checked when it was read."""
    return "median" if setting == "median" else "trimmed"


def robust_mean(values: _Rows, weights: _Rows, cut: int, rule: Rule) -> _Rows:
    """The (M,) numbers that stand for the columns of `values` (S, M), finite; arguments as in `trimmed_mean`."""
    return weighted_median(values, weights) if rule == "median" else trimmed_mean(values, weights, cut)


def weighted_median(values: _Rows, weights: _Rows) -> _Rows:
    """The (M,) medians of the columns of `values` (S, M), finite; `weights` (S,), above 0; 1 <= S."""
    rows, columns = values.shape
    counted = np.minimum(weights, np.sort(weights)[(rows - 1) // 2]).astype(np.float64)
    result = np.empty(columns, dtype=np.float32)
    step = max(1, _PIECE_NUMBERS // rows)
    for begin in range(0, columns, step):
        result[begin : begin + step] = _of_piece(values[:, begin : begin + step], counted)
    return result


def _of_piece(values: _Rows, weights: NDArray[np.float64]) -> _Rows:
    order = np.argsort(values, axis=0, kind="stable")
    ranked = np.take_along_axis(values, order, axis=0)
    sums = np.cumsum(weights[order], axis=0)
    total = float(weights.sum())
    low = (sums < (0.5 - _SAME) * total).sum(axis=0)
    high = (sums <= (0.5 + _SAME) * total).sum(axis=0)
    at_low, at_high = (np.take_along_axis(ranked, index[None, :], axis=0)[0] for index in (low, high))
    # Halves first, since a sum of two numbers may be beyond float32.
    return np.asarray(np.where(low == high, at_low, at_low / 2 + at_high / 2), dtype=np.float32)
