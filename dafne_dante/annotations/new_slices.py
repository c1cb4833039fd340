"""How much of a saved case is new: the slices that nobody had drawn, or had drawn otherwise, when it was kept before.

Invariants: labels are told apart by their names, whatever their order in either version; a slice that lost all that was
drawn on it is no new annotation.
"""

import numpy as np
import numpy.typing as npt

from dafne_dante.annotations.case import Case

__all__ = ["new_slices"]


def new_slices(before: Case | None, after: Case) -> int:
    """Of the annotated slices of a case, those that its version before does not have so; None where there is none."""
    if before is None or before.shape != after.shape:
        return int(after.annotated.sum())
    names = sorted({*before.labels, *after.labels})
    then, now = _places(before, names), _places(after, names)
    return sum(
        not before.annotated[z]
        or not np.array_equal(then[before.segmentation[:, :, z]], now[after.segmentation[:, :, z]])
        for z in np.flatnonzero(after.annotated)
    )


def _places(case: Case, names: list[str]) -> npt.NDArray[np.uint16]:
    """For each value of the segmentation its label's place in `names` (256,), 0 for background."""
    places = np.zeros(256, dtype=np.uint16)
    for value, label in enumerate(case.labels, start=1):
        places[value] = 1 + names.index(label)
    return places
