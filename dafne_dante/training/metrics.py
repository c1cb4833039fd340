"""Dice per label, on the slices that somebody labelled.

Terms: the Dice of a label in one case is 2 |P & R| / (|P| + |R|) over annotated slices, with P what is predicted and
R the reference. Counts (labels, 3) int64 are |P & R|, |P| and |R| of each label; those of several slices of a case add
up. A label that is not in the reference says nothing about that case and is left out (None), never counted as 0
or 1: which labels count then depends on the cases only, so that two models are compared on the same ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["average_dice", "dice_from_counts", "dice_per_label", "overlap_counts"]


def overlap_counts(
    prediction: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    known: npt.NDArray[np.bool_],
    labels: Sequence[str],
) -> npt.NDArray[np.int64]:
    """(labels, 3): voxels in both, in the prediction, in the reference; known broadcasts against the one shape."""
    predicted, true = (volume[np.broadcast_to(known, reference.shape)] for volume in (prediction, reference))
    size = len(labels) + 1
    both, one, other = (
        np.bincount(values, minlength=size)[1:size] for values in (predicted[predicted == true], predicted, true)
    )
    return np.stack([both, one, other], axis=1)


def dice_from_counts(counts: npt.NDArray[np.int64], labels: Sequence[str]) -> dict[str, float | None]:
    """Dice of each label from what `overlap_counts` gave, of one slice or summed over several."""
    return {
        name: 2 * int(both) / int(predicted + true) if true else None
        for name, (both, predicted, true) in zip(labels, counts, strict=True)
    }


def dice_per_label(
    prediction: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    known: npt.NDArray[np.bool_],
    labels: Sequence[str],
) -> dict[str, float | None]:
    """Dice of each label; prediction and reference share one shape, known broadcasts against it."""
    return dice_from_counts(overlap_counts(prediction, reference, known, labels), labels)


def average_dice(scores: Sequence[Mapping[str, float | None]], labels: Sequence[str]) -> dict[str, float | None]:
    """Mean over cases for each label, and under "mean" the mean over the labels that occur; None where none does."""
    result: dict[str, float | None] = {"mean": None}
    for name in labels:
        found = [value for one in scores if (value := one[name]) is not None]
        result[name] = float(np.mean(found)) if found else None
    present = [value for name in labels if (value := result[name]) is not None]
    result["mean"] = float(np.mean(present)) if present else None
    return result
