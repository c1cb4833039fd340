"""Rows of one weight's update, from memory or from the disk, and how many of them are taken at a time.

Terms: rows are slices along the first axis of a weight (O, I, *kernel); a scalar is one row.

Invariant: the rows of all updates that are in memory at a time have at most BLOCK_NUMBERS numbers, or are one row of
each, so memory does not grow with the number of updates as long as a row is short.
"""

from collections.abc import Iterator, Mapping
from math import prod

from torch import Tensor

from dafne_dante.adaptation.low_rank import LowRank, rebuild
from dafne_dante.delta.difference import WeightUpdate, check_fit
from dafne_dante.federation.spilled import SpilledUpdates

__all__ = ["BLOCK_NUMBERS", "dense_rows", "row_blocks"]

BLOCK_NUMBERS = 1 << 21


def row_blocks(shape: tuple[int, ...], updates: int, numbers: int = BLOCK_NUMBERS) -> Iterator[tuple[int, int]]:
    """Begin and end of blocks of rows, so that those of all updates have about `numbers` numbers at most."""
    rows = shape[0] if shape else 1
    step = max(1, numbers // (updates * prod(shape[1:])))
    for begin in range(0, rows, step):
        yield begin, min(begin + step, rows)


def dense_rows(updates: Mapping[str, WeightUpdate], name: str, shape: tuple[int, ...], begin: int, end: int) -> Tensor:
    """Rows of the dense form of weight `name`, float32, in (end - begin, I, *kernel); only they are built.

    Raises:
        DeltaShapeError: the update does not fit a weight of `shape`.
    """
    if isinstance(updates, SpilledUpdates):
        return updates.rows(name, shape, begin, end)
    update = updates[name]
    check_fit(update, shape)
    value = update.value
    if isinstance(value, LowRank):
        part = LowRank(value.form, value.a[..., begin:end, :].float(), value.b.float(), value.scale)
        return rebuild(part, (end - begin, *shape[1:]))
    return (value[begin:end] if shape else value).float()
