"""How well a model with code of its own does on cases: as evaluate.py, but by masks that a child process gives.

Invariants: a label of the cases that the model does not name counts as not found there; labels that only the model
knows are left out; a model that shares no label with the cases is refused, since a Dice of 0 would say something else.
"""

from collections.abc import Collection, Sequence

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.errors import IncompatibleModelError, NotEnoughCasesError
from dafne_dante.models.foreign.answer import Masks
from dafne_dante.models.foreign.isolation import Limits
from dafne_dante.models.foreign.model import ForeignModel
from dafne_dante.models.foreign.predict import predict_foreign
from dafne_dante.training.metrics import average_dice, dice_per_label

__all__ = ["evaluate_foreign"]


def evaluate_foreign(
    model: ForeignModel, cases: Sequence[Case], *, run_model_code: Collection[str], limits: Limits | None = None
) -> dict[str, float | None]:
    """Mean Dice over cases for each label of the cases, and under "mean"; None for a label that never occurs.

    Raises:
        NotEnoughCasesError: there is no case.
        IncompatibleModelError: the cases differ in their labels, or the model finds none of them.
        UnsupportedModelError, ForeignCodeError: as predict_foreign.
    """
    if not cases:
        raise NotEnoughCasesError("expected at least one case to evaluate on, found none; label a study")
    labels = cases[0].labels
    if any(case.labels != labels for case in cases):
        raise IncompatibleModelError("expected cases with the same labels, found different ones; evaluate them apart")
    scores = []
    for case in cases:
        masks = predict_foreign(model, case.image, case.spacing_mm, run_model_code=run_model_code, limits=limits)
        if not set(labels) & set(masks):
            raise IncompatibleModelError(
                f"expected a model that finds {', '.join(labels)}, found one that finds {', '.join(masks)}"
            )
        scores.append(_score(case, masks))
    return average_dice(scores, labels)


def _score(case: Case, masks: Masks) -> dict[str, float | None]:
    """Label by label, because the masks of such a model may overlap."""
    nothing = np.zeros(case.segmentation.shape, dtype=np.bool_)
    found: dict[str, float | None] = {}
    for value, name in enumerate(case.labels, start=1):
        predicted, reference = masks.get(name, nothing).astype(np.uint8), (case.segmentation == value).astype(np.uint8)
        found |= dice_per_label(predicted, reference, case.annotated, [name])
    return found
