"""Polygons in voxel indices -> the voxels whose centres lie inside, by the even-odd rule.

A centre is inside when a ray along its row crosses the edges of all polygons an odd number of times. So a polygon in
another one is a hole, a keyhole contour (a hole joined to the outside by a double edge) is one, too, and the order of
points and polygons does not matter. An edge reaches from its lower end to below its upper end, and a centre exactly
on an edge belongs to the side of the higher index: two areas that share an edge share no voxel and leave none out.

Own code, fifteen lines of it, because what the libraries do differs from this: Pillow rounds the corners to pixels
and draws their borders, matplotlib gives a centre on an edge to neither side or to both, and scikit-image would be a
dependency for one function.

Invariant: memory is bounded by a block of crossings, time by `MAX_CROSSINGS` a slice.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from dafne_dante.types import Volume

__all__ = ["MAX_CROSSINGS", "count_crossings", "fill_even_odd"]

MAX_CROSSINGS = 1 << 26
"""Crossings of edges with rows of voxel centres in one slice: more than any contour that a person draws has."""

_BLOCK = 1 << 20


def fill_even_odd(polygons: Sequence[Volume], shape: tuple[int, int]) -> Volume:
    """(I, J) bool: True where a voxel centre (i, j) lies inside.

    Args:
        polygons: each (N, 2) float64 of fractional indices along I and J; the last point is joined to the first.
        shape: voxels along I and J. What lies outside is cut off.
    """
    inside = np.zeros(shape, dtype=np.bool_, order="F")  # as the slice of the volume that it is laid over
    low, high = _window(polygons, shape)
    size = high - low
    crossed = np.zeros((size[0] + 1) * size[1], dtype=np.int64)
    for start, end in _edges(polygons):
        for column, row in _crossings(start - low, end - low, size):
            crossed += np.bincount(column * size[1] + row, minlength=crossed.size)
    odd = np.cumsum(crossed.reshape(size[0] + 1, size[1])[:-1], axis=0) % 2 == 1
    inside[low[0] : high[0], low[1] : high[1]] = odd
    return inside


def count_crossings(polygons: Sequence[Volume], rows: int) -> int:
    """How many crossings with `rows` rows of centres there are, without finding them."""
    return sum(int(_row_counts(*_row_range(start, end, rows)).sum()) for start, end in _edges(polygons))


def _window(polygons: Sequence[Volume], shape: tuple[int, int]) -> tuple[Volume, Volume]:
    """The first voxel (2,) of a box that holds all polygons, as far as they are in the image, and the one after."""
    points = np.concatenate([*polygons]) if len(polygons) else np.zeros((1, 2))
    low = np.clip(np.floor(points.min(axis=0)), 0, shape).astype(np.int64)
    high = np.clip(np.ceil(points.max(axis=0)) + 1, 0, shape).astype(np.int64)
    return low, np.maximum(low, high)


def _edges(polygons: Sequence[Volume]) -> Iterator[tuple[Volume, Volume]]:
    for polygon in polygons:
        yield polygon, np.roll(polygon, -1, axis=0)


def _row_range(start: Volume, end: Volume, rows: int) -> tuple[Volume, Volume]:
    """The first row that each edge crosses and the one after its last, (N,) each."""
    ends = np.stack([start[:, 1], end[:, 1]])
    first, stop = (np.clip(np.ceil(edge), 0, rows).astype(np.int64) for edge in (ends.min(axis=0), ends.max(axis=0)))
    return first, stop


def _row_counts(first: Volume, stop: Volume) -> Volume:
    counts: Volume = np.maximum(stop - first, 0)
    return counts


def _crossings(start: Volume, end: Volume, shape: Volume) -> Iterator[tuple[Volume, Volume]]:
    """The first column at or behind each crossing, and its row, in blocks."""
    first, stop = _row_range(start, end, int(shape[1]))
    ends = np.cumsum(_row_counts(first, stop))
    total = int(ends[-1]) if len(ends) else 0
    for begin in range(0, total, _BLOCK):
        number = np.arange(begin, min(begin + _BLOCK, total))
        edge = np.searchsorted(ends, number, side="right")
        row = stop[edge] - (ends[edge] - number)
        share = (row - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
        column = start[edge, 0] + share * (end[edge, 0] - start[edge, 0])
        yield np.clip(np.ceil(column), 0, shape[0]).astype(np.int64), row
