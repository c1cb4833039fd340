"""How well a model does on cases, in each image's own grid, on the slices that somebody labelled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from dafne_dante.annotations.case import Case
from dafne_dante.errors import IncompatibleModelError, NotEnoughCasesError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.predict import predict_segmentation
from dafne_dante.training.metrics import average_dice, dice_per_label
from dafne_dante.training.processes import ALONE, Processes
from dafne_dante.training.surface_metrics import DEFAULT_TOLERANCE_MM, surface_scores
from dafne_dante.types import Image, Segmentation, SpacingMm

__all__ = ["OnCase", "Predict", "Scores", "evaluate_cases", "measure_cases"]

OnCase = Callable[[Case, Segmentation, Mapping[str, float | None]], None]
"""Is told a case, what the model gave in the image's own grid, and Dice of every label."""


Predict = Callable[[nn.Module, ModelPlan, Image, SpacingMm], Segmentation]
"""As `predict_segmentation`."""


@dataclass(frozen=True)
class Scores:
    """Means over cases for each label, and over the labels under "mean"; None where nothing could be measured.

    Attributes:
        dice: 0 to 1.
        hd95_mm: 95th percentile of the distance between surfaces; cases in which the model missed the label are left
            out, so read it together with the others.
        surface_dice: 0 to 1, within `tolerance_mm`.
    """

    dice: Mapping[str, float | None]
    hd95_mm: Mapping[str, float | None]
    surface_dice: Mapping[str, float | None]
    tolerance_mm: float


def evaluate_cases(
    network: nn.Module,
    plan: ModelPlan,
    cases: Sequence[Case],
    *,
    on_case: OnCase = lambda case, prediction, dice: None,
    predict: Predict = predict_segmentation,
) -> dict[str, float | None]:
    """Mean Dice over cases for each label, and over labels under "mean"; None for a label that never occurs.

    `on_case` is told every case in turn; `predict` may remember what it was asked before.

    Raises:
        NotEnoughCasesError: there is no case.
        IncompatibleModelError: the cases' labels or contrasts are not the model's.
    """
    scores: list[dict[str, float | None]] = []
    _check_some(cases)

    def score(case: Case, prediction: Segmentation) -> None:
        scores.append(dice_per_label(prediction, case.segmentation, case.annotated, plan.labels))
        on_case(case, prediction, scores[-1])

    _predict_each(network, plan, cases, score, predict)
    return average_dice(scores, plan.labels)


def measure_cases(
    network: nn.Module,
    plan: ModelPlan,
    cases: Sequence[Case],
    *,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    processes: Processes = ALONE,
) -> Scores:
    """Dice, HD95 and surface Dice; errors as `evaluate_cases`, which is quicker where only Dice is needed.

    Several processes measure some of the cases each, and come to the same answer.
    """

    def measure(own: Sequence[Case]) -> list[dict[str, dict[str, float | None]]]:
        rows: list[dict[str, dict[str, float | None]]] = []

        def score(case: Case, prediction: Segmentation) -> None:
            dice = dice_per_label(prediction, case.segmentation, case.annotated, plan.labels)
            found = surface_scores(
                prediction, case.segmentation, case.annotated, case.spacing_mm, plan.labels, tolerance_mm=tolerance_mm
            )
            distance = {name: one.hd95_mm for name, one in found.items()}
            surface = {name: one.surface_dice for name, one in found.items()}
            rows.append({"dice": dice, "hd95_mm": distance, "surface_dice": surface})

        _predict_each(network, plan, own, score)
        return rows

    _check_some(cases)
    rows = processes.share_out(cases, measure)
    means = {name: average_dice([row[name] for row in rows], plan.labels) for name in rows[0]}
    return Scores(**means, tolerance_mm=tolerance_mm)


def _check_some(cases: Sequence[Case]) -> None:
    if not cases:
        raise NotEnoughCasesError("expected at least one case to evaluate on, found none")


def _predict_each(
    network: nn.Module,
    plan: ModelPlan,
    cases: Sequence[Case],
    score: Callable[[Case, Segmentation], None],
    predict: Predict = predict_segmentation,
) -> None:
    for case in cases:
        if case.labels != plan.labels:
            raise IncompatibleModelError(
                f"expected cases labelled {', '.join(plan.labels)}, found {', '.join(case.labels)}"
            )
        prediction = predict(network, plan, case.image, case.spacing_mm)
        score(case, prediction)
