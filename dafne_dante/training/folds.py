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
from dafne_dante.training.scratch import TrainedModel

__all__ = ["FoldScores", "cross_validate", "divide"]


@dataclass(frozen=True)
class FoldScores:
    """What the folds came to.

    Attributes:
        mean, spread: Dice by label and "mean" over the folds, and its standard deviation; None where it could not be
            measured in any fold, or in fewer than two.
        folds: Dice of each.
        best_epochs: of each.
    """

    mean: Mapping[str, float | None]
    spread: Mapping[str, float | None]
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
    found = []
    for number, (training, held_out) in enumerate(divide(cases, folds, seed=seed), start=1):
        trained = train(number, training, held_out)
        found.append((trained.dice, trained.result.best_epoch))
    names = list(found[0][0])
    measured = {name: [dice[name] for dice, _ in found if dice.get(name) is not None] for name in names}
    values = {name: [value for value in some if value is not None] for name, some in measured.items()}
    return FoldScores(
        mean={name: statistics.mean(some) if some else None for name, some in values.items()},
        spread={name: statistics.stdev(some) if len(some) > 1 else None for name, some in values.items()},
        folds=tuple(dice for dice, _ in found),
        best_epochs=tuple(epoch for _, epoch in found),
    )
