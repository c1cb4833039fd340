"""Outlines of a segmented slice as one SVG path, along the edges of its voxels.

Terms: the path is in units of voxels, x along columns, y along rows downwards, (0, 0) the upper left corner of the
first voxel. An *edge* is one side of a voxel with another label on its other side.

Invariants: every label is outlined by closed loops, so that dashes run on around corners; at most `max_edges` edges
are traced, whatever the slice holds: a slice with more is outlined on a grid twice as coarse, and so on.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["outline_path"]

Grid = npt.NDArray[np.uint8]
Point = tuple[int, int]

_TURNS = ((0, -1, (0, 0), (0, 1)), (1, 1, (0, 1), (1, 1)), (0, 1, (1, 1), (1, 0)), (1, -1, (1, 0), (0, 0)))
"""Axis and direction of a neighbour, and the corners (row, column) from and to which the side towards it runs."""


def outline_path(labels: Grid, *, max_edges: int = 8000) -> str:
    """The `d` of a path around every label of a slice (rows, columns), where 0 is nothing."""
    scale = 1
    while _count_edges(labels) > max_edges:
        labels, scale = labels[::2, ::2], scale * 2
    loops = (loop for value in np.unique(labels[labels > 0]) for loop in _loops(labels == value))
    return "".join(_as_text(loop, scale) for loop in loops)


def _count_edges(labels: Grid) -> int:
    bordered = np.pad(labels, 1)
    changes = [np.diff(bordered.astype(np.int16), axis=axis) != 0 for axis in (0, 1)]
    # A side between two labels is outlined for both.
    return 2 * sum(int(change.sum()) for change in changes)


def _loops(inside: npt.NDArray[np.bool_]) -> Iterator[list[Point]]:
    """Corners (x, y) of every closed loop, the label always on the right hand."""
    onward = _edges(inside)
    while onward:
        start = next(iter(onward))
        loop, point = [start], start
        while True:
            ends = onward[point]
            following = ends.pop()
            if not ends:
                del onward[point]
            point = following
            if point == start:
                break
            loop.append(point)
        yield loop


def _edges(inside: npt.NDArray[np.bool_]) -> dict[Point, list[Point]]:
    bordered = np.pad(inside, 1)
    onward: dict[Point, list[Point]] = {}
    for axis, step, begin, end in _TURNS:
        open_side = inside & ~np.roll(bordered, -step, axis=axis)[1:-1, 1:-1]
        for row, column in np.argwhere(open_side).tolist():
            onward.setdefault((column + begin[1], row + begin[0]), []).append((column + end[1], row + end[0]))
    return onward


def _as_text(loop: list[Point], scale: int) -> str:
    """The loop with the straight runs in one piece each."""
    corners = [
        here
        for before, here, after in zip([loop[-1], *loop], loop, [*loop[1:], loop[0]], strict=False)
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1])
    ]
    (x, y), *others = corners
    text = [f"M{x * scale} {y * scale}"]
    for next_x, next_y in others:
        text.append(f"h{(next_x - x) * scale}" if next_y == y else f"v{(next_y - y) * scale}")
        x, y = next_x, next_y
    return "".join([*text, "z"])
