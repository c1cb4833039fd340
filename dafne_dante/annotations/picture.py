"""A picture of one case, so that a person can see that image and mask fit.

Terms: a *plane* shows two voxel axes at one index of the third; the letters at its edges say which side of the patient
is there (R right, L left, A front, P back, S head, I foot).

Invariants: the patient's right is on the left, as radiologists look at pictures; whatever the affine, letters are
derived from it, so that a mirrored image is seen; pixels have the shape of their voxels; slices that nobody labelled
are dimmed, for nothing is known there; one grey scale for all planes; a label has one colour throughout; the file is
whole or absent.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from dafne_dante.annotations.case import Case
from dafne_dante.durable import write_atomically
from dafne_dante.errors import SettingsError
from dafne_dante.types import Affine

__all__ = ["Plane", "choose_planes", "draw_case"]

_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00")
"""Okabe and Ito's palette, which a colour-blind reader tells apart; beyond six labels a wheel of hues follows."""
_PAPER, _INK = "#000000", "#E8E8E8"
_FILL = 0.15
_DIM = 0.55
_EDGE = 4
"""Points along a voxel, so that an outline follows its square edge."""
_COLUMNS = 3
_MAX_SLICES = 9
_MAX_IN_LEGEND = 24
_PANEL_INCHES = 3.0
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}

_Grid = npt.NDArray[Any]


@dataclass(frozen=True)
class Plane:
    """The plane at `index` of voxel axis `axis` (0, 1 or 2)."""

    axis: int
    index: int

    @property
    def across(self) -> int:
        """The voxel axis that is drawn from left to right."""
        return 1 if self.axis == 0 else 0

    @property
    def up(self) -> int:
        """The voxel axis that is drawn upwards."""
        return 1 if self.axis == 2 else 2

    def cut(self, volume: _Grid) -> _Grid:
        """The plane of a volume (X, Y, Z), rows from top to bottom."""
        plane: _Grid = np.take(volume, self.index, axis=self.axis).T[::-1]
        return plane

    def letters(self, affine: Affine) -> tuple[str, str, str, str]:
        """Which side of the patient is at the left, right, bottom and top edge, nearest for an oblique affine."""
        towards = nib.aff2axcodes(affine)
        right, top = towards[self.across], towards[self.up]
        return _OPPOSITE[right], right, _OPPOSITE[top], top


def choose_planes(case: Case) -> tuple[Plane, ...]:
    """Three planes through the middle of what was labelled, then up to 9 slices spread over those with labels."""
    drawn = case.segmentation > 0
    middle = [_middle(drawn, axis) for axis in range(3)]
    slices = np.flatnonzero(drawn.any(axis=(0, 1)) & case.annotated)
    if not slices.size:
        slices = np.flatnonzero(case.annotated)
    chosen = slices[np.unique(np.linspace(0, len(slices) - 1, _MAX_SLICES).round().astype(int))] if slices.size else []
    return (*[Plane(axis, middle[axis]) for axis in (2, 1, 0)], *[Plane(2, int(index)) for index in chosen])


def draw_case(path: Path, case: Case, *, channel: int = 0) -> None:
    """Draw the case into a PNG file.

    Raises:
        SettingsError: matplotlib is not installed, or the image has no such channel.
        StorageError: the disk refuses.
    """
    if not 0 <= channel < case.image.shape[0]:
        raise SettingsError(f"expected one of the image's {len(case.image)} contrasts, found number {channel + 1}")
    try:
        # Heavy, and an optional extra: nothing else in annotations needs it.
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError('expected matplotlib for the picture; run: pip install "dafne-dante[pictures]"') from error
    planes = choose_planes(case)
    rows = -(-len(planes) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _PANEL_INCHES, rows * (_PANEL_INCHES + 0.25) + 1.1), facecolor=_PAPER)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).reshape(-1)
    colours = _colours(case)
    for panel, plane in zip(panels, planes, strict=False):
        _draw_plane(panel, case, plane, channel, colours)
    for panel in panels[len(planes) :]:
        panel.axis("off")
    lines = _draw_legend(figure, case, colours)
    figure.tight_layout(rect=(0.0, (0.35 + 0.22 * lines) / figure.get_figheight(), 1.0, 1.0), w_pad=0.6, h_pad=0.8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    write_atomically(path, stream.getvalue())


def _draw_plane(panel: Any, case: Case, plane: Plane, channel: int, colours: Mapping[int, Any]) -> None:
    spacing = case.spacing_mm
    low, high = _grey_scale(case.image[channel])
    aspect = spacing[plane.up] / spacing[plane.across]
    panel.imshow(
        plane.cut(case.image[channel]), cmap="gray", vmin=low, vmax=high, interpolation="nearest", aspect=aspect
    )
    unknown = np.broadcast_to(~case.annotated, case.shape)
    dimmed = np.zeros((*plane.cut(unknown).shape, 4), dtype=np.float32)
    dimmed[..., 3] = _DIM * plane.cut(unknown)
    panel.imshow(dimmed, interpolation="nearest", aspect=aspect)
    _draw_labels(panel, plane.cut(case.segmentation), colours)
    edges = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.03), (0.5, 0.97))
    left, right, bottom, top = plane.letters(case.affine)
    if right == "R":
        panel.invert_xaxis()
        left, right = right, left
    for (x, y), letter in zip(edges, (left, right, bottom, top), strict=True):
        panel.text(x, y, letter, color=_INK, fontsize=9, ha="center", va="center", transform=panel.transAxes)
    title = (
        f"slice {plane.index + 1} of {case.shape[2]}" if plane.axis == 2 else f"{'XY'[plane.axis]} {plane.index + 1}"
    )
    is_unknown = plane.axis == 2 and not case.annotated[plane.index]
    panel.set_title(title + (" (not labelled)" if is_unknown else ""), color=_INK, fontsize=9, loc="left", pad=3)
    panel.set_xticks([])
    panel.set_yticks([])


def _draw_labels(panel: Any, segmentation: _Grid, colours: Mapping[int, Any]) -> None:
    """Fill every label lightly and outline it along the edges of its voxels."""
    # A border of background, so that what reaches the edge of the image is outlined there, too.
    fine = np.pad(np.kron(segmentation, np.ones((_EDGE, _EDGE), dtype=segmentation.dtype)), 1)
    rows, columns = (
        np.clip((np.arange(size * _EDGE + 2) - 0.5) / _EDGE - 0.5, -0.5, size - 0.5) for size in segmentation.shape
    )
    for value in np.unique(segmentation[segmentation > 0]):
        inside = (fine == value).astype(np.float32)
        colour = colours[int(value)]
        panel.contourf(columns, rows, inside, levels=[0.5, 1.5], colors=[colour], alpha=_FILL)
        panel.contour(columns, rows, inside, levels=[0.5], colors=[colour], linewidths=1.0)


def _draw_legend(figure: Any, case: Case, colours: Mapping[int, Any]) -> int:
    """Labels with their volumes, largest first where there are too many, and what dimmed means; how many lines."""
    from matplotlib.patches import Patch  # noqa: PLC0415

    millilitres = float(np.prod(case.spacing_mm)) / 1000
    volumes = np.bincount(case.segmentation.reshape(-1), minlength=256) * millilitres
    shown = sorted(sorted(colours, key=lambda value: -volumes[value])[:_MAX_IN_LEGEND])
    patches = [
        Patch(color=colours[value], label=f"{_short(case.labels[value - 1])} {volumes[value]:.3g} ml")
        for value in shown
    ]
    if len(shown) < len(case.labels):
        patches.append(Patch(color=_PAPER, label=f"and {len(case.labels) - len(shown)} more"))
    if not case.annotated.all():
        count = int(case.annotated.sum())
        patches.append(Patch(color="#555555", label=f"dimmed: not labelled ({count} of {len(case.annotated)} are)"))
    legend = figure.legend(
        handles=patches, loc="lower center", ncol=_COLUMNS, frameon=False, labelcolor=_INK, fontsize=9
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a label is no formula
    return -(-len(patches) // _COLUMNS)


def _colours(case: Case) -> dict[int, Any]:
    """A colour for each value of the segmentation that has a label."""
    count = len(case.labels)
    if count <= len(_COLOURS):
        return {value: _COLOURS[value - 1] for value in range(1, count + 1)}
    from matplotlib.colors import hsv_to_rgb  # noqa: PLC0415

    # Steps of the golden ratio: neighbours in the list are far apart on the wheel.
    return {value: tuple(hsv_to_rgb((value * 0.618034 % 1, 0.75, 1.0))) for value in range(1, count + 1)}


def _grey_scale(image: _Grid) -> tuple[float, float]:
    """Black and white: a share of outliers apart, whatever the unit of the intensities."""
    low, high = np.percentile(image[:: max(1, image.shape[0] // 128), :: max(1, image.shape[1] // 128)], [1, 99.5])
    return float(low), float(max(high, np.nextafter(low, np.inf)))


def _middle(drawn: _Grid, axis: int) -> int:
    """Where most is labelled along a voxel axis; its middle when nothing is."""
    counts = drawn.sum(axis=tuple(other for other in range(3) if other != axis))
    return int(counts.argmax()) if counts.any() else drawn.shape[axis] // 2


def _short(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}…"
