"""The weighted mean of what is left when the lowest and the highest numbers of each coordinate are cut.

Terms: of S rows, one a site, `cut` are cut at each end of every coordinate (Yin et al., arXiv 1803.01498); the *bounds*
of a coordinate are its highest cut number at the low end and its lowest at the high end.

Rule: rows that hold the same number as a bound share what is cut there by equal parts, so that no row's place decides.

Invariants: pure; the result lies between the lowest and the highest number that is left; no row that is cut, however
large, enters a sum; memory beyond the result is bounded, for columns are taken in pieces that fit a processor's cache.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dafne_dante.federation.order_statistics import ranked

__all__ = ["trimmed_mean"]

# Shorter pieces would fit a faster cache, but each step of a piece is a call of its own for each row.
_PIECE_NUMBERS = 1 << 19

_Rows = NDArray[np.float32]


def trimmed_mean(values: _Rows, weights: _Rows, cut: int) -> _Rows:
    """The (M,) means of the columns of `values` (S, M), finite; `weights` (S,), above 0; 1 <= cut, 2 cut < S."""
    rows, columns = values.shape
    result = np.empty(columns, dtype=np.float32)
    step = min(columns, max(1, _PIECE_NUMBERS // rows))
    work = _Work(np.empty((2, rows, step), dtype=np.bool_), np.empty((rows, step), dtype=np.float32))
    for begin in range(0, columns, step):
        result[begin : begin + step] = _of_piece(values[:, begin : begin + step], weights, cut, work)
    return result


class _Work(NamedTuple):
    """Memory, (2, S, M) and (S, M), that serves every piece."""

    masks: NDArray[np.bool_]
    inside: _Rows


def _of_piece(values: _Rows, weights: _Rows, cut: int, work: _Work) -> _Rows:
    low, high = ranked(values, (cut - 1, len(values) - cut))
    (mask, below), inside = work.masks[..., : len(low)], work.inside[:, : len(low)]
    np.greater(values, low, out=mask)
    np.less(values, high, out=below)
    mask &= below
    left = np.add.reduce(mask.view(np.uint8), axis=0, dtype=_count_type(len(values)))
    np.copyto(inside, mask)
    total = weights @ inside
    # An outlier times zero is zero: numbers are finite.
    inside *= values
    sums = weights @ inside
    tied = np.flatnonzero(left != len(values) - 2 * cut)
    if not len(tied):
        return sums / total
    total[tied] = 1.0
    means = sums / total
    means[tied] = _with_ties(values[:, tied], weights, cut, low[tied], high[tied])
    return means


def _count_type(rows: int) -> type[np.unsignedinteger[Any]]:
    """The narrowest that counts so many rows: a processor adds more of them at a time."""
    return np.uint8 if rows < 1 << 8 else np.uint32


def _with_ties(values: _Rows, weights: _Rows, cut: int, low: _Rows, high: _Rows) -> _Rows:
    """The means of columns where a number that is left equals a bound."""
    inside = (values > low) & (values < high)
    at_low, at_high = values == low, values == high
    kept_low = 1 - (cut - (values < low).sum(axis=0)) / at_low.sum(axis=0)
    kept_high = 1 - (cut - (values > high).sum(axis=0)) / at_high.sum(axis=0)
    shares = inside + at_low * kept_low + at_high * kept_high
    parts = weights[:, None] * np.where(low == high, at_low, shares)
    means = (parts * np.where(parts > 0, values, 0)).sum(axis=0) / parts.sum(axis=0)
    return np.asarray(np.clip(means, low, high), dtype=np.float32)
