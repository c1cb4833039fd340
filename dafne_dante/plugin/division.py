"""How a site's cases are divided between learning and measuring, by how many there are.

Terms: a *fold* is what one training learns from and what is held out of it. From four studies on there is one fold
(`hold_out`); with fewer, each study is held out once, and of a single study each half of its slices (`cross_fit`), so
that a site with one labelled study can improve a model, too, and everything that it labelled is learned from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.holdout import cross_fit, hold_out
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.predict import predict_segmentation
from dafne_dante.training.evaluate import OnCase, evaluate_cases
from dafne_dante.training.metrics import average_dice
from dafne_dante.training.replay import replay_factor
from dafne_dante.types import Image, Segmentation, SpacingMm

__all__ = ["Division", "Fold", "divide", "measure_folds"]

_ENOUGH_STUDIES = 4


@dataclass(frozen=True, eq=False)
class Fold:
    """What is learned from and what is held out."""

    training: Sequence[Case]
    held_out: Sequence[Case]


@dataclass(frozen=True, eq=False)
class Division:
    """All of a site's cases, and one fold of them, or several in which everything is held out once.

    `replayed` are others' cases, which every training learns from as well and nothing is measured on. `is_one_of_many`
    says that this is one fold of several, the others being left out for want of time.
    """

    cases: Sequence[Case]
    folds: tuple[Fold, ...]
    replayed: Sequence[Case] = ()
    is_one_of_many: bool = False

    def with_replay(self, cases: Sequence[Case]) -> "Division":
        """The same division, with these cases to learn from beside the site's."""
        return replace(self, replayed=cases)

    def first_fold(self) -> "Division":
        """One training only: the first fold, which learns from less."""
        return replace(self, folds=self.folds[:1], is_one_of_many=True)

    @property
    def replay_factor(self) -> float:
        """How many times more steps trainings take for the cases that are replayed, at most."""
        return max(replay_factor(len(fold.training), len(self.replayed)) for fold in self.folds)

    @property
    def is_cross_fit(self) -> bool:
        """Whether there are several folds, after which a last training learns from all cases."""
        return len(self.folds) > 1

    @property
    def learned_from(self) -> int:
        """How many cases the update comes from."""
        return len(self.cases) if self.is_cross_fit else len(self.folds[0].training)

    @property
    def held_out(self) -> int:
        """How many cases are measured on."""
        return len(self.cases) if self.is_cross_fit else len(self.folds[0].held_out)

    @property
    def words(self) -> str:
        """For a person."""
        if self.is_one_of_many and len({case.case_id for case in self.cases}) == 1:
            return "half of the labelled slices of 1 case to learn from, the other half held out: there is little time"
        if not self.is_cross_fit:
            return f"{self.learned_from} case{'s' * (self.learned_from != 1)} to learn from, {self.held_out} held out"
        if len({case.case_id for case in self.cases}) == 1:
            return "1 case to learn from, each half of its labelled slices held out once"
        return f"{len(self.cases)} cases to learn from, each held out once"


def divide(cases: Sequence[Case], *, seed: int) -> Division:
    """Divide cases; NotEnoughCasesError where there is nothing to learn from and to hold out (see `cross_fit`)."""
    if len({case.case_id for case in cases}) >= _ENOUGH_STUDIES:
        return Division(cases, (Fold(*hold_out(cases, seed=seed)),))
    return Division(cases, tuple(Fold(*fold) for fold in cross_fit(cases, seed=seed)))


def measure_folds(
    networks: Sequence[nn.Module],
    plan: ModelPlan,
    division: Division,
    *,
    on_case: OnCase = lambda case, prediction, dice: None,
) -> Mapping[str, float | None]:
    """Mean over the folds of Dice ("mean" and each label) of each fold's network on what it did not learn from."""
    predict = _LastRemembered()
    scores = [
        evaluate_cases(network, plan, fold.held_out, on_case=on_case, predict=predict)
        for network, fold in zip(networks, division.folds, strict=True)
    ]
    return scores[0] if len(scores) == 1 else average_dice(scores, plan.labels)


class _LastRemembered:
    """Predicts, and gives the last answer again for the same network and image: both halves of a study have one."""

    def __init__(self) -> None:
        self._asked: tuple[nn.Module, Image] | None = None
        self._answer: Segmentation | None = None

    def __call__(self, network: nn.Module, plan: ModelPlan, image: Image, spacing_mm: SpacingMm) -> Segmentation:
        if self._answer is None or self._asked is None or self._asked[0] is not network or self._asked[1] is not image:
            self._asked, self._answer = (network, image), predict_segmentation(network, plan, image, spacing_mm)
        return self._answer
