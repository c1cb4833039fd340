"""Dice of a model on cases, in each image's own grid, on the slices that somebody labelled."""

from collections.abc import Sequence

from torch import nn

from dafne_dante.annotations.case import Case
from dafne_dante.errors import IncompatibleModelError, NotEnoughCasesError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.predict import predict_segmentation
from dafne_dante.training.metrics import average_dice, dice_per_label

__all__ = ["evaluate_cases"]


def evaluate_cases(network: nn.Module, plan: ModelPlan, cases: Sequence[Case]) -> dict[str, float | None]:
    """Mean Dice over cases for each label, and over labels under "mean"; None for a label that never occurs.

    Raises:
        NotEnoughCasesError: there is no case.
        IncompatibleModelError: the cases' labels or contrasts are not the model's.
    """
    if not cases:
        raise NotEnoughCasesError("expected at least one case to evaluate on, found none")
    scores = []
    for case in cases:
        if case.labels != plan.labels:
            raise IncompatibleModelError(
                f"expected cases labelled {', '.join(plan.labels)}, found {', '.join(case.labels)}"
            )
        prediction = predict_segmentation(network, plan, case.image, case.spacing_mm)
        scores.append(dice_per_label(prediction, case.segmentation, case.annotated, plan.labels))
    return average_dice(scores, plan.labels)
