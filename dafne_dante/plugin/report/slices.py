"""Slices of held-out cases with what a person drew and what both models draw.

Terms: the *chosen* cases are the best, the median and the worst by the improved model's Dice. Of each the slice is
shown in which both models together are wrong in most voxels: the one that says most about either.

Invariants
- The patient's right is on the left and the front, or the head, at the top, whatever the affine.
- A picture has at most 320 x 320 pixels and 40,000 edges of outlines, so that the page stays small.
- Only the surroundings of what is labelled are shown.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.picture import Plane
from dafne_dante.plugin.report.measured import Dice, HeldOutCase
from dafne_dante.plugin.report.outlines import outline_path
from dafne_dante.types import Segmentation

__all__ = ["SlicePicture", "choose_cases", "picture_of", "pictures_of"]

_MOST_PIXELS = 320
_MARGIN = 0.12
_LEAST_VOXELS = 24

Volume = npt.NDArray[np.float32] | Segmentation


@dataclass(frozen=True)
class SlicePicture:
    """One slice of one case.

    Attributes:
        rank: "Best", "Median" or "Worst"; "" where there is one case only.
        name: the case's.
        number, slices: the slice, from 1, of how many.
        png: the grey image, base64.
        columns, rows: size of image and outlines in their own units.
        width_mm, height_mm: size in the patient.
        left, top: the side of the patient at these edges; the others are opposite.
        reference, before, after: outlines as SVG paths.
        wrong_before, wrong_after: outlines of the voxels in which a model differs from the reference.
        dice_before, dice_after: of the case.
    """

    rank: str
    name: str
    number: int
    slices: int
    png: str
    columns: int
    rows: int
    width_mm: float
    height_mm: float
    left: str
    top: str
    reference: str
    before: str
    after: str
    wrong_before: str
    wrong_after: str
    dice_before: Dice
    dice_after: Dice


def choose_cases(held_out: Sequence[HeldOutCase]) -> tuple[tuple[str, HeldOutCase], ...]:
    """Best, median and worst; fewer where there are fewer cases in which anything could be measured."""
    scored = [(dice, one) for one in held_out if (dice := one.after.dice["mean"]) is not None]
    ordered = [one for _, one in sorted(scored, key=lambda pair: -pair[0])]
    if len(ordered) < 2:
        return tuple(("", one) for one in ordered)
    middle = (("Median", ordered[len(ordered) // 2]),) if len(ordered) > 2 else ()
    return (("Best", ordered[0]), *middle, ("Worst", ordered[-1]))


def picture_of(rank: str, held_out: HeldOutCase) -> SlicePicture:
    """The picture of one case, of the slice that tells most."""
    return pictures_of(rank, held_out, most=1)[0]


def pictures_of(rank: str, held_out: HeldOutCase, *, most: int) -> list[SlicePicture]:
    """At most so many pictures of one case: the slices that tell most, from the first to the last."""
    before, after = held_out.before.prediction(), held_out.after.prediction()
    telling = _telling_slices(held_out.case, before, after)[:most]
    return [_picture(rank, held_out, index, before, after) for index in sorted(telling)]


def _picture(rank: str, held_out: HeldOutCase, index: int, before: Segmentation, after: Segmentation) -> SlicePicture:
    case, plane = held_out.case, Plane(2, index)
    left, right, bottom, top = plane.letters(case.affine)
    flips = (slice(None, None, -1 if bottom in "AS" else 1), slice(None, None, -1 if right == "R" else 1))
    drawn = [plane.cut(volume)[flips] for volume in (case.segmentation, before, after)]
    window, step = _window(np.maximum.reduce(drawn) > 0)
    grey = _grey(plane.cut(case.image[0])[flips])[window]
    drawn = [np.ascontiguousarray(one[window]) for one in drawn]
    wrong = [(one != drawn[0]).astype(np.uint8) for one in drawn[1:]]
    reference, old, new, wrong_old, wrong_new = (outline_path(one) for one in (*drawn, *wrong))
    spacing = case.spacing_mm
    return SlicePicture(
        rank, held_out.name, plane.index + 1, case.shape[2], _png(grey), grey.shape[1], grey.shape[0],
        grey.shape[1] * spacing[plane.across] * step, grey.shape[0] * spacing[plane.up] * step,
        "R" if right == "R" else left, bottom if bottom in "AS" else top,
        reference, old, new, wrong_old, wrong_new, held_out.before.dice, held_out.after.dice,
    )  # fmt: skip


def _telling_slices(case: Case, before: Segmentation, after: Segmentation) -> list[int]:
    """The labelled slices, those with most voxels that a model has wrong, then with most that are labelled, first."""
    wrong = (before != case.segmentation).sum(axis=(0, 1)) + (after != case.segmentation).sum(axis=(0, 1))
    drawn = (case.segmentation > 0).sum(axis=(0, 1))
    known = [int(index) for index in np.flatnonzero(case.annotated)]
    return sorted(known, key=lambda index: (-wrong[index], -drawn[index], index))


def _window(drawn: npt.NDArray[np.bool_]) -> tuple[tuple[slice, slice], int]:
    """Rows and columns around what is drawn, every `step`-th of them, and that step."""
    spans = [_span(np.flatnonzero(drawn.any(axis=1 - axis)), drawn.shape[axis]) for axis in (0, 1)]
    step = max(1, *(-(-(stop - start) // _MOST_PIXELS) for start, stop in spans))
    (top, bottom), (left, right) = spans
    return (slice(top, bottom, step), slice(left, right, step)), step


def _span(found: npt.NDArray[np.intp], size: int) -> tuple[int, int]:
    if not found.size:
        return 0, size
    margin = max(int(_MARGIN * (found[-1] - found[0])), (_LEAST_VOXELS - int(found[-1] - found[0])) // 2, 2)
    return max(0, int(found[0]) - margin), min(size, int(found[-1]) + 1 + margin)


def _grey(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Black to white, a share of outliers apart, whatever the unit of the intensities."""
    low, high = (float(value) for value in np.percentile(image, [1, 99.5]))
    scaled = (image.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.asarray(np.clip(scaled, 0, 1) * 255, dtype=np.uint8)


def _png(grey: npt.NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
