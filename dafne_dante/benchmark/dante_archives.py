"""Cases as Dante reads them, so that it learns from the ones that it is to learn from and validates on the others.

Terms: an *archive* is one case in a NumPy file: data (X, Y, Z), resolution (3,) mm, affine (4, 4), and a mask_<label>
(X, Y, Z) a label.

What is known of dante-trainer 1.0.3b3, by running it: it takes the archives of a folder in the order of their names; a
fifth of them, rounded up, become its validation cases, the first ones of a permutation whose seed is always 42. Its
labels are the masks in alphabetical order.

Invariants: masks are named so that the alphabetical order is the plan's; where the numbers of cases do not make a
fifth, all training or all selection cases are there several times, never one more often than another of its part.
"""

import io
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.benchmark.splits import Split
from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import TrainingError

__all__ = ["copies", "validation_places", "write_archives"]

_VALIDATION_SHARE = 0.2
_SEED = 42
_MOST_COPIES = 64


def copies(training: int, selection: int) -> tuple[int, int]:
    """How often the training and the selection cases must be there, so that Dante validates on all of the latter.

    Raises:
        TrainingError: no number of copies does it.
    """
    for total in range(2, _MOST_COPIES):
        for often in range(1, total):
            validated = selection * (total - often)
            if ceil(_VALIDATION_SHARE * (often * training + validated)) == validated:
                return often, total - often
    raise TrainingError(
        f"expected so many cases that Dante can validate on a fifth, found {training} and {selection}; add studies"
    )


def validation_places(count: int) -> set[int]:
    """Which of `count` archives, in the order of their names, Dante validates on."""
    drawn = np.random.RandomState(_SEED).permutation(count)
    return {int(place) for place in drawn[: ceil(_VALIDATION_SHARE * count)]}


def write_archives(folder: Path, split: Split) -> None:
    """Write training and selection cases; TrainingError as `copies`, StorageError where the disk refuses."""
    make_folder(folder)
    training, selection = copies(len(split.training), len(split.selection))
    count = training * len(split.training) + selection * len(split.selection)
    validated = validation_places(count)
    learned_from, held_out = list(split.training) * training, list(split.selection) * selection
    for place in range(count):
        _write(folder / f"{place:04}.npz", (held_out if place in validated else learned_from).pop())


def _write(path: Path, case: Case) -> None:
    masks = {
        f"mask_{label}": (case.segmentation == value).astype(np.uint8)
        for value, label in enumerate(_names_in_order(case.labels), start=1)
    }
    resolution = np.linalg.norm(case.affine[:3, :3], axis=0)
    content = io.BytesIO()
    np.savez(content, data=case.image[0], resolution=resolution, affine=case.affine, **masks)
    write_atomically(path, content.getvalue())


def _names_in_order(labels: Sequence[str]) -> tuple[str, ...]:
    """Names whose alphabetical order is that of the labels."""
    return tuple(f"{place:03}" for place in range(1, len(labels) + 1))
