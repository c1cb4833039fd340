"""An update without its numbers: what can be checked before any memory is taken.

Terms: an *outline* says of which weight an update is, its kind (`dense` or a form of `adaptation.low_rank`), the shapes
of its parts in the order of `naming.parts_of`, and the scale of its product.

Invariant: what fits as an outline fits as an update of those shapes, and the other way round.
"""

from dataclasses import dataclass
from math import prod

from dafne_dante.adaptation.low_rank import FORMS, factor_shapes
from dafne_dante.delta.naming import shown
from dafne_dante.errors import DeltaShapeError

__all__ = ["Outline", "check_outline", "check_pair"]

_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Outline:
    """One update without its numbers; `scale` is 1.0 for a dense one."""

    weight: str
    kind: str
    shapes: tuple[_Shape, ...]
    scale: float = 1.0


def check_outline(outline: Outline, shape: _Shape) -> None:
    """Do nothing when the update fits a weight of `shape` (O, I, *kernel).

    The rank is bounded by the sizes of the matrix that the factors make, (O, I * K) for lora-shared, else (O, I):
    above the smaller one factors can say no more and are longer than the weight itself.

    Raises:
        DeltaShapeError: another shape, factors that do not belong together, or a rank above its bound.
    """
    if outline.kind in FORMS:
        _check_factors(outline, shape)
    elif outline.shapes[0] != shape:
        raise DeltaShapeError(
            f"expected an update of {shown(outline.weight)} with shape {shape}, found {outline.shapes[0]}"
        )


def check_pair(outline: Outline) -> None:
    """What can be said of two factors without their weight; DeltaShapeError where they do not belong together."""
    if outline.kind not in FORMS:
        return
    a, b = outline.shapes
    axes = 3 if outline.kind == "lora-channel" else 2
    if len(a) != axes or len(b) != axes or a[:-2] != b[:-2] or a[-1] != b[-2] or a[-1] > min(a[-2], b[-1]):
        raise DeltaShapeError(f"expected factors of {shown(outline.weight)} that belong together, found {a}, {b}")


def _check_factors(outline: Outline, shape: _Shape) -> None:
    kind, (a, b) = outline.kind, outline.shapes
    assert kind in FORMS
    rank = a[-1] if a else 0
    columns = prod(shape[1:]) if kind == "lora-shared" else prod(shape[1:2])
    rank_bound = min(shape[0], columns) if len(shape) >= 2 else 0
    linear_with_kernel = kind == "lora-linear" and len(shape) != 2
    if len(a) < 2 or linear_with_kernel or not 1 <= rank <= rank_bound:
        raise DeltaShapeError(
            f"expected {kind} factors of rank 1 to {rank_bound} for {shown(outline.weight)} {shape}, "
            f"found shapes {a} and {b}"
        )
    expected = factor_shapes(kind, shape, rank)
    if outline.shapes != expected:
        raise DeltaShapeError(
            f"expected factors of {shown(outline.weight)} with shapes {expected[0]} and {expected[1]}, "
            f"found {a} and {b}"
        )
