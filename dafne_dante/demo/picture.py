"""One picture of the demonstration: image, reference, before and after, one row a hospital.

Terms
- row: one held-out case of one hospital, shown on the axial slice with the most labelled voxels.

Invariants: neurological view (the subject's left on the left, front on top) by the axes of a canonical Case; the same
slice, crop and grey scale along a row; colours that a colour-blind reader tells apart (Okabe and Ito 2008); the file
is whole or absent.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dafne_dante.durable import write_atomically
from dafne_dante.errors import SettingsError
from dafne_dante.types import Segmentation, SpacingMm, Volume

__all__ = ["ComparisonRow", "draw_comparison"]

_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00")
"""Okabe and Ito's palette without black and the blue that is lost on a dark picture."""
_PAPER = "#000000"
_INK = "#E8E8E8"
_FILL = 0.30
_EDGE = 6
"""Points along a voxel, so that an outline follows its square edge."""
_MARGIN_VOXELS = 2
_PANEL_INCHES = 2.6


@dataclass(frozen=True, eq=False)
class ComparisonRow:
    """One case of one hospital.

    Attributes:
        title: the hospital, and in a word what is special about it.
        image: (X, Y, Z), axes of a Case.
        reference, before, after: (X, Y, Z) uint8, label i stands for labels[i - 1].
        spacing_mm: along X, Y, Z.
        dice_before, dice_after: mean Dice of this case, 0 to 1.
    """

    title: str
    image: Volume
    reference: Segmentation
    before: Segmentation
    after: Segmentation
    spacing_mm: SpacingMm
    dice_before: float
    dice_after: float


def draw_comparison(path: Path, rows: Sequence[ComparisonRow], *, labels: Sequence[str]) -> None:
    """Draw the rows into a PNG file.

    Raises:
        SettingsError: matplotlib is not installed.
        StorageError: the disk refuses.
    """
    try:
        # Heavy, and an optional extra: no other command of the program needs it.
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError('expected matplotlib for the picture; run: pip install "dafne-dante[demo]"') from error
    figure = Figure(figsize=(4 * _PANEL_INCHES, len(rows) * (_PANEL_INCHES + 0.42) + 0.5), facecolor=_PAPER)
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), 4, squeeze=False)
    for axes, row in zip(panels, rows, strict=True):
        _draw_row(axes, row)
    _draw_legend(figure, labels)
    figure.tight_layout(rect=(0.0, 0.45 / figure.get_figheight(), 1.0, 1.0), w_pad=0.4, h_pad=0.9)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    write_atomically(path, stream.getvalue())


def _draw_row(axes: Sequence[Any], row: ComparisonRow) -> None:
    window = _window(row)
    spacing_x, spacing_y, _ = row.spacing_mm
    shown = [
        (None, row.title),
        (row.reference, "reference"),
        (row.before, f"before: Dice {row.dice_before:.2f}"),
        (row.after, f"after: Dice {row.dice_after:.2f}"),
    ]
    image = _upright(row.image[window])
    positive = image[image > 0]
    low, high = np.percentile(positive, [1, 99.5]) if positive.size else (0.0, 1.0)
    for panel, (segmentation, title) in zip(axes, shown, strict=True):
        # A little below the darkest tissue, so that fluid is not lost in the background.
        panel.imshow(
            image, cmap="gray", vmin=low - 0.25 * (high - low), vmax=high, interpolation="bicubic",
            aspect=spacing_y / spacing_x,
        )  # fmt: skip
        if segmentation is not None:
            _draw_labels(panel, _upright(segmentation[window]))
        panel.set_title(title, color=_INK, fontsize=11, loc="left", pad=5)
        panel.axis("off")


def _draw_labels(panel: Any, segmentation: npt.NDArray[Any]) -> None:
    """Fill every label lightly and outline it along the edges of its voxels."""
    fine = np.kron(segmentation, np.ones((_EDGE, _EDGE), dtype=segmentation.dtype))
    # Positions of the finer points among the voxel centres, which imshow puts at whole numbers.
    rows, columns = ((np.arange(size * _EDGE) + 0.5) / _EDGE - 0.5 for size in segmentation.shape)
    for value in np.unique(segmentation[segmentation > 0]):
        colour = _COLOURS[(int(value) - 1) % len(_COLOURS)]
        inside = (fine == value).astype(np.float32)
        panel.contourf(columns, rows, inside, levels=[0.5, 1.5], colors=[colour], alpha=_FILL)
        panel.contour(columns, rows, inside, levels=[0.5], colors=[colour], linewidths=1.0)


def _draw_legend(figure: Any, labels: Sequence[str]) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415

    patches = [Patch(color=_COLOURS[index % len(_COLOURS)], label=label) for index, label in enumerate(labels)]
    figure.legend(handles=patches, loc="lower center", ncol=len(patches), frameon=False, labelcolor=_INK, fontsize=11)


def _window(row: ComparisonRow) -> tuple[slice, slice, int]:
    """The body's box in X and Y and the slice with the most labelled voxels, or the middle one when none has any."""
    counts = (row.reference > 0).sum(axis=(0, 1))
    middle = int(counts.argmax()) if counts.any() else row.reference.shape[2] // 2
    body = np.any(row.image > 0, axis=2)
    spans = []
    for axis in (0, 1):
        where = np.flatnonzero(np.any(body, axis=1 - axis))
        first, last = (int(where[0]), int(where[-1])) if where.size else (0, body.shape[axis] - 1)
        spans.append(slice(max(0, first - _MARGIN_VOXELS), last + 1 + _MARGIN_VOXELS))
    return spans[0], spans[1], middle


def _upright(volume_slice: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(X, Y) to rows from front to back and columns from left to right."""
    return volume_slice.T[::-1]
