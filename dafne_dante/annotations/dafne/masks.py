"""What counts as a mask in an array that somebody hands over, and as intensities.

Invariants: an array of one label has one value beside 0 and none below it; a map of several labels under the name of
one is refused, not flattened. Intensities are real and finite.
"""

from typing import Any

import numpy as np

from dafne_dante.errors import UnknownLabelError, UnreadableImageError
from dafne_dante.types import Volume

__all__ = ["check_finite", "drawn_voxels", "is_real"]


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether an array of this dtype holds plain real numbers of at most 8 bytes, or bools."""
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def drawn_voxels(array: Volume, name: str) -> Volume:
    """Bool, of the array's shape: where the label is drawn. `name` tells which mask it is.

    Raises:
        UnknownLabelError: values other than 0 and one greater number.
        UnreadableImageError: not real numbers.
    """
    if not is_real(array.dtype):
        raise UnreadableImageError(f"{name}: expected a mask of numbers, found {array.dtype}; save it again")
    if array.dtype == np.bool_:
        return array
    drawn: Volume = array != 0
    highest = array.max(initial=0)  # of an array with NaN in it, NaN, which equals nothing
    if not (array[drawn] == highest).all() or (drawn.any() and not 0 < highest < np.inf):
        raise UnknownLabelError(
            f"{name}: expected a mask with one value beside 0, found others; write one mask a label"
        )
    return drawn


def check_finite(volume: Volume, name: str) -> None:
    """UnreadableImageError when an intensity is no number or infinite."""
    if volume.dtype.kind == "f" and not np.isfinite(volume).all():
        raise UnreadableImageError(f"{name}: expected finite intensities, found NaN or infinity; export it again")
