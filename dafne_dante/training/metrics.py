"""Dice per label, on the slices that somebody labelled.

Terms: the Dice of a label in one case is 2 |P & R| / (|P| + |R|) over annotated slices. A label that is in neither
the prediction nor the reference says nothing about that case and is left out (None), never counted as 0 or 1.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["average_dice", "dice_per_label"]


def dice_per_label(
    prediction: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    known: npt.NDArray[np.bool_],
    labels: Sequence[str],
) -> dict[str, float | None]:
    """Dice of each label; prediction and reference share one shape, known broadcasts against it."""
    known = np.broadcast_to(known, reference.shape)
    scores: dict[str, float | None] = {}
    for value, name in enumerate(labels, start=1):
        predicted, true = (prediction == value) & known, (reference == value) & known
        total = int(predicted.sum()) + int(true.sum())
        scores[name] = 2 * int((predicted & true).sum()) / total if total else None
    return scores


def average_dice(scores: Sequence[Mapping[str, float | None]], labels: Sequence[str]) -> dict[str, float | None]:
    """Mean over cases for each label, and under "mean" the mean over the labels that occur; None where none does."""
    result: dict[str, float | None] = {"mean": None}
    for name in labels:
        found = [value for one in scores if (value := one[name]) is not None]
        result[name] = float(np.mean(found)) if found else None
    present = [value for name in labels if (value := result[name]) is not None]
    result["mean"] = float(np.mean(present)) if present else None
    return result
