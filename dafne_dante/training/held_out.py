"""What the held-out cases say after an epoch, for a few hundredths of the epoch's time.

Terms: held-out cases, padded as for inference, are tiled with *windows* of the plan's patch, as few as cover the case
(a 2D plan's windows are whole slices). Work is counted in voxels that go forward through the network.

Invariants
- Every epoch of a training is measured on the same windows, in evaluation mode, so that epochs are compared like with
  like; a voxel that two windows hold counts once. Dice is of the case: its windows count together.
- Where all windows are more work than allowed, first each label's richest window is taken, so that no label goes
  unseen, then others spread evenly over cases. What a run reports at its end is measured on whole cases
  (`evaluate`), never here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.predict import evaluating
from dafne_dante.models.preprocess import pad_for_network
from dafne_dante.training.losses import dice_cross_entropy
from dafne_dante.training.metrics import average_dice, dice_from_counts, overlap_counts
from dafne_dante.training.prepared import PreparedCase
from dafne_dante.training.processes import ALONE, Processes

__all__ = ["HeldOutWindows"]

_VOXELS_AT_ONCE = {"cpu": 1 << 15, "cuda": 1 << 22}
_LEAST_WINDOWS = 8


@dataclass(frozen=True, eq=False)
class _Place:
    """The `window`-th window of a case, of `size` voxels, with `voxels` known of each label (labels,)."""

    case: int
    window: int
    size: int
    voxels: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Window:
    """image (C, *size) float32, target and known (*size), of one case."""

    case_id: str
    image: npt.NDArray[np.float32]
    target: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]


class HeldOutWindows:
    """The windows on which the epochs of one training are compared.

    Args:
        most_voxels: work that one measurement may be, but at least eight windows; None for all windows.
    """

    def __init__(self, cases: Sequence[PreparedCase], plan: ModelPlan, *, most_voxels: int | None = None) -> None:
        places = [place for number, case in enumerate(cases) for place in _places(number, case, plan)]
        chosen = places if most_voxels is None else _chosen(places, most_voxels)
        self._labels = plan.labels
        self._windows = list(_taken(cases, plan, chosen))

    @property
    def voxels(self) -> int:
        """The work of one measurement."""
        return sum(window.target.size for window in self._windows)

    def measure(self, network: nn.Module, processes: Processes = ALONE) -> tuple[float | None, dict[str, float | None]]:
        """Mean loss of a window and Dice ("mean" and each label); None where nothing was held out.

        Several processes look at a part of the windows each, and come to the same answer.
        """
        looks = processes.share_out(self._windows, lambda windows: self._look(network, windows))
        losses: list[float] = []
        counts: dict[str, npt.NDArray[np.int64]] = {}
        for window, (loss, found) in zip(self._windows, looks, strict=True):
            losses.append(loss)
            counts[window.case_id] = counts.get(window.case_id, 0) + np.array(found)
        scores = [dice_from_counts(count, self._labels) for count in counts.values()]
        return (float(np.mean(losses)) if losses else None), average_dice(scores, self._labels)

    def _look(self, network: nn.Module, windows: Sequence[_Window]) -> list[tuple[float, list[list[int]]]]:
        """Loss and counts of each window."""
        looks: list[tuple[float, list[list[int]]]] = []
        device = next(network.parameters()).device
        with evaluating(network), torch.inference_mode():
            for batch in _batches(windows, _VOXELS_AT_ONCE.get(device.type, 1 << 15)):
                image, target, known = (
                    torch.from_numpy(np.stack([getattr(window, part) for window in batch])).to(device)
                    for part in ("image", "target", "known")
                )
                logits = network(image).float()
                losses = [
                    float(dice_cross_entropy(logits[one], target[one], known[one]))
                    for one in (slice(index, index + 1) for index in range(len(batch)))
                ]
                predictions = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
                for loss, window, prediction in zip(losses, batch, predictions, strict=True):
                    found = overlap_counts(prediction, window.target, window.known, self._labels)
                    looks.append((loss, found.tolist()))
        return looks


def _places(number: int, case: PreparedCase, plan: ModelPlan) -> Iterator[_Place]:
    for index, window in enumerate(_tile(case, plan)):
        voxels = np.bincount(window.target[window.known], minlength=len(plan.labels) + 1)[1:]
        yield _Place(number, index, window.target.size, voxels)


def _taken(cases: Sequence[PreparedCase], plan: ModelPlan, places: Sequence[_Place]) -> Iterator[_Window]:
    """Copies of these windows, in this order; one padded case is in memory at a time."""
    for number, group in groupby(places, key=lambda place: place.case):
        windows = list(_tile(cases[number], plan))
        for place in group:
            window = windows[place.window]
            yield _Window(window.case_id, window.image.copy(), window.target.copy(), window.known)


def _tile(case: PreparedCase, plan: ModelPlan) -> Iterator[_Window]:
    """The windows of a case that hold something known."""
    image, inner = pad_for_network(case.prepared.image, plan)
    target, known = np.zeros(image.shape[1:], np.uint8), np.zeros(image.shape[1:], np.bool_)
    target[inner], known[inner] = case.target, case.known_voxels
    size = image.shape[1:] if plan.dimensions == 2 else plan.patch
    lacking = np.maximum(0, np.subtract(size, target.shape))
    missing = [(0, int(count)) for count in lacking]
    image, target, known = np.pad(image, [(0, 0), *missing]), np.pad(target, missing), np.pad(known, missing)
    corners = map(_starts, (part.start for part in inner), case.target.shape, size, target.shape)
    for corner in product(*corners):
        box = tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))
        here = known[box].copy()
        known[box] = False  # what another window holds, too, counts once
        if here.any():
            yield _Window(case.case_id, image[(slice(None), *box)], target[box], here)


def _starts(first: int, length: int, size: int, padded: int) -> list[int]:
    """Where windows begin along an axis, spread evenly, as few as cover the `length` voxels from `first` on."""
    if length <= size:
        return [min(max(0, first - (size - length) // 2), padded - size)]
    count = -(-length // size)
    return [first + round(start) for start in np.linspace(0, length - size, count)]


def _chosen(places: Sequence[_Place], most_voxels: int) -> list[_Place]:
    """As many as the work allows, in their own order."""
    if not places:
        return []
    count = max(_LEAST_WINDOWS, most_voxels // max(place.size for place in places))
    if count >= len(places):
        return list(places)
    voxels = np.stack([place.voxels for place in places])
    richest = dict.fromkeys(int(index) for index in voxels.argmax(axis=0)[voxels.any(axis=0)])
    chosen = list(richest)[: count // 2]
    others = [index for index in range(len(places)) if index not in chosen]
    spread = np.linspace(0, len(others) - 1, count - len(chosen)).round().astype(int)
    return [places[index] for index in sorted([*chosen, *(others[step] for step in spread)])]


def _batches(windows: Sequence[_Window], voxels_at_once: int) -> Iterator[list[_Window]]:
    """Neighbours of one size together, as many as fit."""
    batch: list[_Window] = []
    for window in windows:
        full = (len(batch) + 1) * window.target.size > voxels_at_once
        if batch and (full or window.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
