"""Rows of one weight's update, from memory or from the disk, and how many of them are taken at a time.

Terms: rows are slices along the first axis of a weight (O, I, *kernel); a scalar is one row.

Invariant: the rows of all updates that are in memory at a time have at most BLOCK_NUMBERS numbers, or are one row of
each, so memory does not grow with the number of updates as long as a row is short.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from math import prod

from torch import Tensor

from dafne_dante.adaptation.low_rank import LowRank, rebuild
from dafne_dante.delta.difference import WeightUpdate, check_fit
from dafne_dante.federation.spilled import SpilledUpdates

__all__ = ["BLOCK_NUMBERS", "dense_rows", "kept_open", "row_blocks"]

BLOCK_NUMBERS = 1 << 22
# A process on macOS may have 256 files open, connections among them.
_MOST_OPEN = 128


def row_blocks(shape: tuple[int, ...], updates: int, numbers: int = BLOCK_NUMBERS) -> Iterator[tuple[int, int]]:
    """Begin and end of blocks of rows, so that those of all updates have about `numbers` numbers at most."""
    rows = shape[0] if shape else 1
    step = max(1, numbers // (updates * prod(shape[1:])))
    for begin in range(0, rows, step):
        yield begin, min(begin + step, rows)


@contextmanager
def kept_open(many: Iterable[Mapping[str, WeightUpdate]]) -> Iterator[None]:
    """Until the end of the block the files of the first updates are opened only once, of the rest for each reading."""
    spilled = (updates for updates in many if isinstance(updates, SpilledUpdates))
    with ExitStack() as stack:
        for updates in islice(spilled, _MOST_OPEN):
            stack.enter_context(updates.kept_open())
        yield


def dense_rows(
    updates: Mapping[str, WeightUpdate], name: str, shape: tuple[int, ...], rows: tuple[int, int], out: Tensor
) -> Tensor:
    """Rows of the dense form of weight `name`, float32 in (rows, I, *kernel); only they are built.

    Args:
        updates: the update of that weight among them.
        name: of the weight.
        shape: of the weight (O, I, *kernel).
        rows: their begin and end.
        out: contiguous float32, of as many numbers; takes the rows, and what comes back is a view of it.

    Raises:
        DeltaShapeError: the update does not fit a weight of `shape`.
    """
    begin, end = rows
    if isinstance(updates, SpilledUpdates):
        return updates.rows(name, shape, begin, end, out)
    update = updates[name]
    check_fit(update, shape)
    value = update.value
    target = out.view((end - begin, *shape[1:]) if shape else ())
    if isinstance(value, LowRank):
        part = LowRank(value.form, value.a[..., begin:end, :].float(), value.b.float(), value.scale)
        return target.copy_(rebuild(part, target.shape))
    return target.copy_(value[begin:end] if shape else value)
