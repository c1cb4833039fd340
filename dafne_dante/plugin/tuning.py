"""From a base model and a division of a site's cases to the update that is worth sending.

Terms: the *step* is how much of what training moved is kept: 1 for all of it, 0 for nothing, so that the global model
stays (WiSE-FT, arXiv 2109.01903, as a search on held-out cases).

Invariants
- The step is the one of 0, 1/4, 1/2, 3/4 and 1 that does best on held-out cases, the longer one where two do equally;
  so an improvement is never a loss there.
- With several folds each is trained and measured by itself. They decide how many epochs and which step; a last
  training then learns from all cases, for so many epochs of the same schedule. Where somebody stops before its end,
  what the first fold has learnt is what is kept, for that alone was measured on cases that it did not learn from.
- What is sent is as small as it may be: each weight's update at the lowest rank whose residual (`delta.compression`) is
  allowed, and the largest residual is allowed up to which Dice on windows of the held-out cases stays within 0.002, up
  or down: on few cases a change for the better is as much a sign of another model as one for the worse.
  Where int8 alone changes more than that, it is stored in float16, and where that does, in float32.
- What earlier updates of this site left out is taken along (`delta.carried`) where it costs no Dice; with noise never.
- What is measured is the base plus the update as it would be sent, noise included; the improved model that stays is
  without noise.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.delta.carried import compressed_with, left_of
from dafne_dante.delta.compression import compressed
from dafne_dante.delta.difference import Precision, WeightUpdate
from dafne_dante.delta.encode import updates_as_sent
from dafne_dante.delta.noise import clipped_and_noised
from dafne_dante.models.build import build_network, canonical_weights
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.plugin.apply import updated_model
from dafne_dante.plugin.division import Division, measure_folds
from dafne_dante.plugin.fold_result import Trained
from dafne_dante.plugin.improvement_request import TrainingPart
from dafne_dante.plugin.trainings import Tuning, train_fold, train_last
from dafne_dante.training.hardware import choose_device
from dafne_dante.training.held_out import HeldOutWindows
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.loop import FitResult
from dafne_dante.training.prepared import PreparedCase

__all__ = ["Tuned", "Tuning", "at_best_step", "smallest_updates", "tune"]

_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
_WINDOWS_TO_CHOOSE_BY = 64
_DICE_TOLERANCE = 0.002


class _Form(NamedTuple):
    """How much may be left out of an update, and how coarsely the rest is stored."""

    residual: float
    precision: Precision = "auto"

    def stored(self, updates: Iterable[WeightUpdate]) -> tuple[WeightUpdate, ...]:
        """The updates, to be stored so."""
        return tuple(replace(update, precision=self.precision) for update in updates)


_EXACT = _Form(0.0, "float32")
_FORMS = (_Form(0.0, "float16"), *map(_Form, (0.0, 0.05, 0.1, 0.2, 0.3)))
"""The smaller, the later."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """What tuning came to: the epochs, the step, what moved, the model as a reader of the delta gets it, its Dice.

    `left` is what sending leaves out, with what was carried; nothing where there is noise. `division` is what the
    update was learned from and measured on: that which was asked for, or one fold of it where somebody stopped. `live`
    says what could move when, in the training that it comes from.
    """

    result: FitResult
    step: float
    updates: tuple[WeightUpdate, ...]
    improved: GlobalModel
    after: Mapping[str, float | None]
    division: Division
    left: Mapping[str, Tensor] = field(default_factory=dict)
    live: tuple[str, ...] = ()


def tune(tuning: Tuning, division: Division) -> Tuned:
    """Tune the base on the cases; errors are those of `loop.fit`."""
    return _cross_fitted(tuning, division) if division.is_cross_fit else _held_out(tuning, division)


def at_best_step(
    base: GlobalModel, updates: Sequence[WeightUpdate], held_out: Sequence[PreparedCase]
) -> tuple[WeightUpdate, ...]:
    """The updates as long as does best on the held-out cases; none where the global model should stay."""
    measure = _Measure(base, held_out)
    return _scaled(updates, _best_step([[measure(_scaled(updates, step)) for step in _STEPS]])[0])


def smallest_updates(
    base: GlobalModel, updates: Sequence[WeightUpdate], held_out: Sequence[PreparedCase]
) -> tuple[WeightUpdate, ...]:
    """The updates, whole in length, as small as they may be by the rule of this module."""
    measure = _Measure(base, held_out)
    form = _form_allowed([measure], [updates], whole=measure(updates))
    return form.stored(compressed(updates, form.residual))


def _held_out(tuning: Tuning, division: Division) -> Tuned:
    (fold,) = division.folds
    trained = train_last(tuning, fold.training, fold.held_out, replayed=division.replayed)
    return _tuned(tuning, division, trained, [trained])


def _cross_fitted(tuning: Tuning, division: Division) -> Tuned:
    found: list[Trained] = []
    count = len(division.folds) + 1
    for number, fold in enumerate(division.folds, start=1):
        part = _part(tuning, number, count, found)
        found.append(train_fold(tuning, fold.training, fold.held_out, part, replayed=division.replayed))
        if tuning.stop():
            return _first_alone(tuning, division, found[0])
    history = _mean_history([one.result.history for one in found])
    best = max(history, key=lambda record: record.score).epoch
    last = replace(tuning, recipe=replace(tuning.recipe, last_epoch=best))
    part = _part(last, count, count, found)
    tuning.on_stage(f"training {count}, on all cases, for {part.epochs} epoch{'' if best == 1 else 's'}")
    trained = train_last(last, division.cases, (), part, replayed=division.replayed)
    if len(trained.result.history) < best:
        return _first_alone(tuning, division, found[0])
    return _tuned(tuning, division, replace(trained, result=FitResult(history, best)), found)


def _part(tuning: Tuning, number: int, count: int, before: Sequence[Trained]) -> TrainingPart:
    done = sum(len(one.result.history) for one in before)
    most = tuning.recipe.epochs
    return TrainingPart(number, count, tuning.recipe.last_epoch or most, done, count * most)


def _first_alone(tuning: Tuning, division: Division, first: Trained) -> Tuned:
    """Somebody stopped: what the first fold has learnt so far, which was measured on what it did not learn from."""
    tuning.on_stage("stopped: what the first training has learnt is kept, measured on what it did not learn from")
    return _tuned(tuning, division.first_fold(), first, [first])


def _tuned(tuning: Tuning, division: Division, trained: Trained, folds: Sequence[Trained]) -> Tuned:
    """Keep the best step of everything, as small as it may be, and measure it as it would be sent."""
    base = tuning.base
    tuning.on_training(None)
    tuning.on_stage("choosing how much of it to keep, and measuring it as it would be sent")
    measures = [_Measure(base, tuning.prepare(fold.held_out, base.plan)) for fold in division.folds]
    step, whole = _best_step(
        [[one(_scaled(fold.updates, step)) for step in _STEPS] for one, fold in zip(measures, folds, strict=True)]
    )
    kept = [_scaled(one.updates, step) for one in folds]
    updates = trained.updates
    form = _form_allowed(measures, kept, whole=whole)
    shapes = {name: tuple(tensor.shape) for name, tensor in canonical_weights(base.plan, base.weights).items()}
    carried = {} if tuning.noise else tuning.carried

    def packed(one: Sequence[WeightUpdate], along: Mapping[str, Tensor]) -> tuple[WeightUpdate, ...]:
        return form.stored(compressed_with(along, one, shapes, form.residual))

    along = carried if carried and _costs_nothing(measures, kept, packed, carried) else {}
    small = packed(_scaled(updates, step), along)
    leaving = [clipped_and_noised(packed(one, along), base.weights, tuning.noise) for one in kept]
    networks = [_network(base, updates_as_sent(one)) for one in leaving]
    after = measure_folds(networks, base.plan, division, on_case=tuning.on_measured)
    received = updates_as_sent(small)
    improved = updated_model(base, received, timestamp=int(time.time()))
    sent = leaving[0] if len(leaving) == 1 else clipped_and_noised(small, base.weights, tuning.noise)
    left = {} if tuning.noise else left_of(_scaled(updates, step), carried, received, shapes)
    return Tuned(trained.result, step, sent, improved, after, division, left, trained.live)


def _costs_nothing(
    measures: Sequence["_Measure"],
    kept: Sequence[Sequence[WeightUpdate]],
    packed: Callable[[Sequence[WeightUpdate], Mapping[str, Tensor]], tuple[WeightUpdate, ...]],
    carried: Mapping[str, Tensor],
) -> bool:
    """Whether what is carried may be taken along: Dice on held-out cases falls by no more than is tolerated."""

    def dice(along: Mapping[str, Tensor]) -> float:
        pairs = zip(measures, kept, strict=True)
        return float(np.mean([measure(updates_as_sent(packed(one, along))) for measure, one in pairs]))

    return dice(carried) >= dice({}) - _DICE_TOLERANCE


class _Measure:
    """Mean Dice on windows of held-out cases of the base with updates; -1 where no label occurs."""

    def __init__(self, base: GlobalModel, held_out: Sequence[PreparedCase]) -> None:
        most = _WINDOWS_TO_CHOOSE_BY * int(np.prod(base.plan.patch))
        self._base = base
        self._windows = HeldOutWindows(held_out, base.plan, most_voxels=most)

    def __call__(self, updates: Sequence[WeightUpdate]) -> float:
        mean = self._windows.measure(_network(self._base, updates))[1]["mean"]
        return -1.0 if mean is None else mean


def _form_allowed(
    measures: Sequence[Callable[[Sequence[WeightUpdate]], float]],
    kept: Sequence[Sequence[WeightUpdate]],
    *,
    whole: float,
) -> _Form:
    """The smallest form up to which the Dice of the whole, the mean over the folds, changes no more than tolerated.

    One after the other: to halve the forms would take half of the looks, but what is allowed by chance behind a form
    that is not costs Dice on cases that nobody has looked at (0.005 in a test that allows 0.003).
    """

    def dice(form: _Form) -> float:
        sent = [updates_as_sent(form.stored(compressed(updates, form.residual))) for updates in kept]
        return float(np.mean([measure(updates) for measure, updates in zip(measures, sent, strict=True)]))

    within = takewhile(lambda form: abs(dice(form) - whole) <= _DICE_TOLERANCE, _FORMS)
    return next(reversed(list(within)), _EXACT)


def _best_step(scores: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The step with the highest mean over the folds, and that mean."""
    mean, step = max(zip(np.mean(scores, axis=0), _STEPS, strict=True))
    return step, float(mean)


def _scaled(updates: Sequence[WeightUpdate], step: float) -> tuple[WeightUpdate, ...]:
    """The same updates, `step` times as long; none for a step of 0."""
    if step in {0.0, 1.0}:
        return tuple(updates) if step else ()
    return tuple(
        replace(update, value=replace(update.value, scale=update.value.scale * step))
        if isinstance(update.value, LowRank)
        else replace(update, value=update.value * step)
        for update in updates
    )


def _network(base: GlobalModel, updates: Sequence[WeightUpdate]) -> nn.Module:
    improved = updated_model(base, updates, timestamp=base.timestamp)
    return build_network(base.plan, improved.weights).to(choose_device())


def _mean_history(histories: Sequence[Sequence[EpochRecord]]) -> tuple[EpochRecord, ...]:
    """Epoch by epoch the mean over the folds, as far as all went, for a person may stop one; seconds add up."""
    return tuple(_mean_record(records) for records in zip(*histories, strict=False))


def _mean_record(records: Sequence[EpochRecord]) -> EpochRecord:
    losses = [record.val_loss for record in records if record.val_loss is not None]
    dice = {
        name: float(np.mean(found)) if (found := [one for r in records if (one := r.dice[name]) is not None]) else None
        for name in records[0].dice
    }
    return replace(
        records[0],
        seconds=sum(record.seconds for record in records),
        train_loss=float(np.mean([record.train_loss for record in records])),
        val_loss=float(np.mean(losses)) if losses else None,
        dice=dice,
    )
