"""From a base model and a division of a site's cases to the update that is worth sending.

Terms: the *step* is how much of what training moved is kept: 1 for all of it, 0 for nothing, so that the global model
stays (WiSE-FT, arXiv 2109.01903, as a search on held-out cases).

Invariants
- The step is the one of 0, 1/4, 1/2, 3/4 and 1 that does best on held-out cases, the longer one where two do equally;
  so an improvement is never a loss there.
- With several folds each is trained and measured by itself. They decide how many epochs and which step; a last
  training then learns from all cases, for so many epochs of the same schedule.
- What is sent is as small as it may be: each weight's update at the lowest rank whose residual (`delta.compression`) is
  allowed, and the largest residual is allowed with which Dice on windows of the held-out cases falls by 0.002 at most.
- What earlier updates of this site left out is taken along (`delta.carried`) where it costs no Dice; with noise never.
- What is measured is the base plus the update as it would be sent, noise included; the improved model that stays is
  without noise.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.adaptation.protocol import Method
from dafne_dante.annotations.case import Case
from dafne_dante.delta.carried import compressed_with, left_of
from dafne_dante.delta.compression import compressed
from dafne_dante.delta.difference import WeightUpdate, take_difference
from dafne_dante.delta.encode import updates_as_sent
from dafne_dante.delta.noise import Noise, clipped_and_noised
from dafne_dante.models.build import build_network, canonical_weights
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.plugin.apply import updated_model
from dafne_dante.plugin.division import Division, measure_folds
from dafne_dante.plugin.thrift import Thrift
from dafne_dante.training.evaluate import OnCase
from dafne_dante.training.hardware import choose_device
from dafne_dante.training.held_out import HeldOutWindows
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.loop import FitResult, fit
from dafne_dante.training.prepared import Prepare, PreparedCase, prepare_cases
from dafne_dante.training.recipe import Recipe
from dafne_dante.training.replay import steps_with_replay, with_replay

__all__ = ["Tuned", "Tuning", "at_best_step", "smallest_updates", "tune"]

_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
_WINDOWS_TO_CHOOSE_BY = 64
_RESIDUALS = (0.3, 0.2, 0.1, 0.05)
_DICE_TOLERANCE = 0.002


@dataclass(frozen=True, eq=False)
class Tuning:
    """What to tune and how.

    Attributes:
        method: makes a new method, one for each training.
        checkpoint: of the last training; None for none.
        on_epoch: is told every finished epoch, counted over all trainings, and how many there will be.
        on_stage: is told in words what is done.
        prepare: prepares cases, or remembers them.
        noise: how the update is clipped and noised before it leaves; None for not at all.
        on_measured: is told every held-out case and what the update, as it would be sent, makes of it.
        stop: whether to end each training with the best so far, see `loop.fit`.
        thrift: how to train where memory is short.
        look_at: what a method is shown before it begins; what it learns from when left out.
        carried: what this site's earlier updates left out, dense by weight.
    """

    base: GlobalModel
    method: Callable[[], Method]
    recipe: Recipe
    checkpoint: Path | None = None
    on_epoch: Callable[[EpochRecord, int], None] = lambda record, epochs: None
    on_stage: Callable[[str], None] = lambda words: None
    prepare: Prepare = prepare_cases
    noise: Noise | None = None
    on_measured: OnCase = lambda case, prediction, dice: None
    stop: Callable[[], bool] = lambda: False
    thrift: Thrift = field(default_factory=Thrift)
    look_at: Sequence[Case] = ()
    carried: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Tuned:
    """What tuning came to: the epochs, the step, what moved, the model as a reader of the delta gets it, its Dice.

    `left` is what sending leaves out, with what was carried; nothing where there is noise.
    """

    result: FitResult
    step: float
    updates: tuple[WeightUpdate, ...]
    improved: GlobalModel
    after: Mapping[str, float | None]
    left: Mapping[str, Tensor] = field(default_factory=dict)


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
    return compressed(updates, _residual_allowed([measure], [updates], whole=measure(updates)))


def _held_out(tuning: Tuning, division: Division) -> Tuned:
    (fold,) = division.folds
    result, updates = _train(
        tuning, fold.training, fold.held_out, replayed=division.replayed, checkpoint=tuning.checkpoint
    )
    return _tuned(tuning, division, result, updates, [updates])


def _cross_fitted(tuning: Tuning, division: Division) -> Tuned:
    results: list[FitResult] = []
    found: list[tuple[WeightUpdate, ...]] = []
    count = len(division.folds) + 1
    for number, fold in enumerate(division.folds, start=1):
        tuning.on_stage(f"training {number} of {count}")
        result, updates = _train(
            tuning, fold.training, fold.held_out, replayed=division.replayed, before=results, of=count
        )
        results.append(result)
        found.append(updates)
    history = _mean_history([result.history for result in results])
    best = max(history, key=lambda record: record.score).epoch
    tuning.on_stage(f"training {count}, on all cases, for {best} epoch{'' if best == 1 else 's'}")
    last = replace(tuning, recipe=replace(tuning.recipe, last_epoch=best))
    _, updates = _train(
        last, division.cases, (), replayed=division.replayed, before=results, of=count, checkpoint=tuning.checkpoint
    )
    return _tuned(tuning, division, FitResult(history, best), updates, found)


def _tuned(
    tuning: Tuning,
    division: Division,
    result: FitResult,
    updates: Sequence[WeightUpdate],
    by_fold: Sequence[Sequence[WeightUpdate]],
) -> Tuned:
    """Keep the best step of everything, as small as it may be, and measure it as it would be sent."""
    base = tuning.base
    measures = [_Measure(base, tuning.prepare(fold.held_out, base.plan)) for fold in division.folds]
    step, whole = _best_step(
        [[one(_scaled(moved, step)) for step in _STEPS] for one, moved in zip(measures, by_fold, strict=True)]
    )
    kept = [_scaled(one, step) for one in by_fold]
    residual = _residual_allowed(measures, kept, whole=whole)
    shapes = {name: tuple(tensor.shape) for name, tensor in canonical_weights(base.plan, base.weights).items()}
    carried = {} if tuning.noise else tuning.carried

    def packed(one: Sequence[WeightUpdate], along: Mapping[str, Tensor]) -> tuple[WeightUpdate, ...]:
        return compressed_with(along, one, shapes, residual)

    along = carried if carried and _costs_nothing(measures, kept, packed, carried) else {}
    small = packed(_scaled(updates, step), along)
    leaving = [clipped_and_noised(packed(one, along), base.weights, tuning.noise) for one in kept]
    networks = [_network(base, updates_as_sent(one)) for one in leaving]
    after = measure_folds(networks, base.plan, division, on_case=tuning.on_measured)
    received = updates_as_sent(small)
    improved = updated_model(base, received, timestamp=int(time.time()))
    sent = leaving[0] if len(leaving) == 1 else clipped_and_noised(small, base.weights, tuning.noise)
    left = {} if tuning.noise else left_of(_scaled(updates, step), carried, received, shapes)
    return Tuned(result, step, sent, improved, after, left)


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


def _train(
    tuning: Tuning,
    training: Sequence[Case],
    held_out: Sequence[Case],
    *,
    replayed: Sequence[Case] = (),
    before: Sequence[FitResult] = (),
    of: int = 1,
    checkpoint: Path | None = None,
) -> tuple[FitResult, tuple[WeightUpdate, ...]]:
    """One training from the base; `before` are the trainings that went before it, `of` is how many there are."""
    base, method = tuning.base, tuning.method()
    network = build_network(base.plan, base.weights).to(choose_device())
    done = sum(len(result.history) for result in before)

    def tell(record: EpochRecord) -> None:
        tuning.on_epoch(replace(record, epoch=done + record.epoch), of * tuning.recipe.epochs)

    own, others = tuning.prepare(training, base.plan), tuning.prepare(replayed, base.plan)
    steps = steps_with_replay(tuning.recipe.steps_per_epoch, own, others)
    result = fit(
        network,
        tuning.thrift.plan_to_train_by(base.plan),
        method,
        with_replay(own, others),
        tuning.prepare(held_out, base.plan),
        recipe=replace(tuning.recipe, steps_per_epoch=steps),
        on_epoch=tell,
        on_stage=tuning.on_stage,
        checkpoint=checkpoint,
        stop=tuning.stop,
        look_at=tuning.prepare(tuning.look_at, base.plan),
    )
    tuned = canonical_weights(base.plan, plain_weights(network))
    return result, take_difference(canonical_weights(base.plan, base.weights), tuned, method.factors(network))


class _Measure:
    """Mean Dice on windows of held-out cases of the base with updates; -1 where no label occurs."""

    def __init__(self, base: GlobalModel, held_out: Sequence[PreparedCase]) -> None:
        most = _WINDOWS_TO_CHOOSE_BY * int(np.prod(base.plan.patch))
        self._base = base
        self._windows = HeldOutWindows(held_out, base.plan, most_voxels=most)

    def __call__(self, updates: Sequence[WeightUpdate]) -> float:
        mean = self._windows.measure(_network(self._base, updates))[1]["mean"]
        return -1.0 if mean is None else mean


def _residual_allowed(
    measures: Sequence[_Measure], kept: Sequence[Sequence[WeightUpdate]], *, whole: float
) -> float:  # fmt: skip
    """The largest residual that costs no more than is tolerated of the Dice of the whole, the mean over the folds."""

    def dice(residual: float) -> float:
        sent = [updates_as_sent(compressed(updates, residual)) for updates in kept]
        return float(np.mean([measure(updates) for measure, updates in zip(measures, sent, strict=True)]))

    return next((residual for residual in _RESIDUALS if dice(residual) >= whole - _DICE_TOLERANCE), 0.0)


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
