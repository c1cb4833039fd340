"""What sending leaves out of an update, kept for the site's next one (error feedback).

Terms: an update as it was learned is *meant*; as a reader of its delta gets it, it is *sent*. What is *left* is meant
plus what was *carried* from before, less what is sent; dense, by the weight's name. Over any number of rounds, what was
sent and what is left add up to what was meant (Seide et al., Interspeech 2014; Karimireddy et al., arXiv 1901.09847).

Invariants: only weights that an update moves take something along; a low-rank update takes it along only where that
does not make it much larger, else it stays for another time; nothing here is ever sent as such.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.delta.compression import compressed
from dafne_dante.delta.difference import WeightUpdate, dense_value

__all__ = ["compressed_with", "left_of"]

Shapes = Mapping[str, tuple[int, ...]]
_MOST_GROWTH = 1.5


def compressed_with(
    carried: Mapping[str, Tensor], updates: Iterable[WeightUpdate], shapes: Shapes, residual: float
) -> tuple[WeightUpdate, ...]:
    """The updates with what was carried, each as small as `compression.compressed` makes it.

    Args:
        carried: dense, in the weights' shapes.
        shapes: of all weights by name.

    Raises:
        DeltaShapeError, DeltaValueError: as `dense_value` and `compressed`.
    """
    return tuple(_together(update, carried.get(update.weight), shapes, residual) for update in updates)


def left_of(
    meant: Iterable[WeightUpdate], carried: Mapping[str, Tensor], sent: Iterable[WeightUpdate], shapes: Shapes
) -> dict[str, Tensor]:
    """Meant plus carried less sent, for every weight where that is not nothing; float32."""
    left = {name: tensor.clone() for name, tensor in carried.items()}
    for sign, updates in ((1.0, meant), (-1.0, sent)):
        for update in updates:
            dense = sign * dense_value(update, shapes[update.weight])
            left[update.weight] = left[update.weight] + dense if update.weight in left else dense
    return {name: tensor for name, tensor in left.items() if torch.count_nonzero(tensor)}


def _together(update: WeightUpdate, carried: Tensor | None, shapes: Shapes, residual: float) -> WeightUpdate:
    (plain,) = compressed([update], residual)
    if carried is None:
        return plain
    both = WeightUpdate(update.weight, dense_value(update, shapes[update.weight]) + carried)
    (found,) = compressed([both], residual)
    return found if _numbers(found) <= _MOST_GROWTH * _numbers(plain) else plain


def _numbers(update: WeightUpdate) -> int:
    value = update.value
    return value.a.numel() + value.b.numel() if isinstance(value, LowRank) else value.numel()
