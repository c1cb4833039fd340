"""K-fold: every study is held out once, by a model that did not learn from it.

Invariants: one study is never on both sides; which fold it is in depends on the seed and the images alone (see
`annotations.holdout`); folds differ by one study at most.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.holdout import order_of_drawing
from dafne_dante.errors import NotEnoughCasesError
from dafne_dante.training.evaluate import Scores
from dafne_dante.training.scratch import TrainedModel

__all__ = ["FoldScores", "Spread", "cross_validate", "divide"]


@dataclass(frozen=True)
class Spread:
    """By label and "mean": mean over the folds, and its standard deviation (of a sample).

    None where it could not be measured in any fold, or in fewer than two.
    """

    mean: Mapping[str, float | None]
    spread: Mapping[str, float | None]


@dataclass(frozen=True)
class FoldScores:
    """What the folds came to.

    Attributes:
        mean, spread: of Dice, as in Spread.
        hd95_mm, surface_dice: see `evaluate.Scores`.
        folds: Dice of each.
        best_epochs: of each.
    """

    mean: Mapping[str, float | None]
    spread: Mapping[str, float | None]
    hd95_mm: Spread
    surface_dice: Spread
    folds: tuple[Mapping[str, float | None], ...]
    best_epochs: tuple[int, ...]


def divide(cases: Sequence[Case], folds: int, *, seed: int) -> Iterator[tuple[list[Case], list[Case]]]:
    """For each fold the cases to learn from and those held out.

    Raises:
        NotEnoughCasesError: fewer different studies than folds, or fewer than two folds.
    """
    drawn = order_of_drawing(cases, seed=seed)
    studies = list(dict.fromkeys(case.case_id for case in drawn))
    if not 2 <= folds <= len(studies):
        raise NotEnoughCasesError(
            f"expected at least 2 folds and as many different studies, found {folds} folds of {len(studies)} studies"
        )
    for fold in range(folds):
        held = set(studies[fold::folds])
        yield [case for case in drawn if case.case_id not in held], [case for case in drawn if case.case_id in held]


def cross_validate(
    cases: Sequence[Case],
    folds: int,
    train: Callable[[int, Sequence[Case], Sequence[Case]], TrainedModel],
    *,
    seed: int,
) -> FoldScores:
    """Train and measure each fold by `train(number of the fold, to learn from, held out)`; one model at a time."""
    scores: list[Scores] = []
    best_epochs: list[int] = []
    for number, (training, held_out) in enumerate(divide(cases, folds, seed=seed), start=1):
        trained = train(number, training, held_out)
        assert trained.scores is not None  # every fold holds something out
        scores.append(trained.scores)
        best_epochs.append(trained.result.best_epoch)
    dice = _spread([one.dice for one in scores])
    return FoldScores(
        mean=dice.mean,
        spread=dice.spread,
        hd95_mm=_spread([one.hd95_mm for one in scores]),
        surface_dice=_spread([one.surface_dice for one in scores]),
        folds=tuple(one.dice for one in scores),
        best_epochs=tuple(best_epochs),
    )


def _spread(folds: Sequence[Mapping[str, float | None]]) -> Spread:
    values = {name: [value for fold in folds if (value := fold[name]) is not None] for name in folds[0]}
    return Spread(
        mean={name: statistics.mean(some) if some else None for name, some in values.items()},
        spread={name: statistics.stdev(some) if len(some) > 1 else None for name, some in values.items()},
    )
