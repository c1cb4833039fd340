"""Along which axes a patch may be mirrored.

Terms: a label *has a side* when its name says left or right: the words themselves anywhere in it, or `l`, `r` and the
like as a word of their own (`VL_R`, `kidney.l`, `femurLeft`). A *side axis* of a case is one along which the body goes
from left to right.

Invariant: a mirrored left kidney is a right one, so with such labels no side axis of any case is mirrored. Without
them every axis is, the stacking axis too, as in nnU-Net. A name that only looks as if it had a side costs no more than
a mirror.
"""

import re
from collections.abc import Sequence

from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.prepared import PreparedCase

__all__ = ["has_side", "mirror_axes"]

_ANYWHERE = ("left", "right")
_WORDS = frozenset({"l", "r", "lt", "rt", "lh", "rh", "links", "rechts", "gauche", "droite", "droit", "sinister",
                    "dexter", "sinistra", "destra", "izquierda", "derecha", "sin", "dx", "sx"})  # fmt: skip


def has_side(label: str) -> bool:
    """Whether the name of a label says left or right."""
    lower = label.lower()
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", label)
    return any(word in lower for word in _ANYWHERE) or any(part.lower() in _WORDS for part in parts)


def mirror_axes(plan: ModelPlan, cases: Sequence[PreparedCase]) -> tuple[int, ...]:
    """Axes of the plan's patch that may be mirrored for these cases."""
    axes = range(len(plan.patch))
    if not any(has_side(label) for label in plan.labels):
        return tuple(axes)
    sides = {axis for case in cases for axis in case.side_axes}
    return tuple(axis for axis in axes if axis not in sides)
