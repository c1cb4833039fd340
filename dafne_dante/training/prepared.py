"""Cases prepared once for training and validation.

Terms: a prepared case holds image (C, Z, X, Y) float32, target (Z, X, Y) uint8 and known (Z,) bool on the grid that
the network sees. For a 2D plan every annotated slice of a case becomes one prepared case with image (C, X, Y),
target (X, Y) and known () True.

Invariant: where nobody labelled, the target is 0 whatever the case holds there, so that nothing can depend on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dafne_dante.annotations.case import Case
from dafne_dante.errors import IncompatibleModelError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.predict import check_channels
from dafne_dante.models.preprocess import PreparedImage, prepare_image, prepare_known, prepare_segmentation

__all__ = ["PREPARATION", "Prepare", "PreparedCase", "check_case", "prepare_case", "prepare_cases"]

PREPARATION = 1
"""Counts up with every change of what is prepared from the same case and plan."""


_SIDEWAYS = 0.3
"""Cosine of the angle between an axis and left-right from which a mirror along it would swap sides."""


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """One case, or one slice, on the network's grid; shapes in the module docstring.

    Attributes:
        case_id: tells which slices belong to one case.
        side_axes: axes of the target along which the body goes from left to right; two where it lies obliquely.
    """

    case_id: str
    prepared: PreparedImage
    target: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]
    side_axes: tuple[int, ...]

    @property
    def known_voxels(self) -> npt.NDArray[np.bool_]:
        """Known, broadcast over the target's shape."""
        axes = (slice(None),) * self.known.ndim + (None,) * (self.target.ndim - self.known.ndim)
        return np.broadcast_to(self.known[axes], self.target.shape)


Prepare = Callable[[Sequence[Case], ModelPlan], Sequence[PreparedCase]]
"""What prepares cases for a plan: `prepare_cases`, or a cache that does it once."""


def prepare_cases(cases: Sequence[Case], plan: ModelPlan) -> list[PreparedCase]:
    """Prepare every case for the plan; IncompatibleModelError when labels or contrasts differ from the plan's."""
    prepared: list[PreparedCase] = []
    for case in cases:
        check_case(case, plan)
        prepared += prepare_case(case, plan)
    return prepared


def check_case(case: Case, plan: ModelPlan) -> None:
    """IncompatibleModelError when labels or contrasts differ from the plan's."""
    if case.labels != plan.labels:
        raise IncompatibleModelError(
            f"expected cases labelled {', '.join(plan.labels)}, found {', '.join(case.labels)}"
        )
    check_channels(plan, case.image.shape[0])


def prepare_case(case: Case, plan: ModelPlan) -> list[PreparedCase]:
    """One volume, or for a 2D plan every annotated slice, of a case that fits the plan.

    Of the plan only its dimensions and spacing matter.
    """
    return _slices(case, plan) if plan.dimensions == 2 else [_volume(case, plan)]


def _volume(case: Case, plan: ModelPlan) -> PreparedCase:
    image = prepare_image(case.image, case.spacing_mm, plan)
    target = prepare_segmentation(case.segmentation, image.record, case.annotated)
    known = prepare_known(case.annotated, image.record)
    sides = _side_axes(case, (2, 0, 1))
    return PreparedCase(case.case_id, image, np.where(known[:, None, None], target, np.uint8(0)), known, sides)


def _slices(case: Case, plan: ModelPlan) -> list[PreparedCase]:
    found: list[PreparedCase] = []
    for index in np.flatnonzero(case.annotated):
        image = prepare_image(case.image[..., index], case.spacing_mm, plan)
        target = prepare_segmentation(case.segmentation[..., index], image.record)
        found.append(PreparedCase(case.case_id, image, target, np.array(True), _side_axes(case, (0, 1))))
    return found


def _side_axes(case: Case, order: tuple[int, ...]) -> tuple[int, ...]:
    """Positions in `order`, a choice of the case's axes X, Y, Z, of those that run from left to right, or partly so."""
    share = np.abs(case.affine[0, :3]) / np.asarray(case.spacing_mm)
    return tuple(position for position, axis in enumerate(order) if share[axis] > _SIDEWAYS)
