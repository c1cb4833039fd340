"""The trainings of one improvement: each begins from the base, is told, can be stopped, and goes on where it was ended.

Invariant: a training that was interrupted, and one that was over, come on a CPU to what an uninterrupted one comes to.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.protocol import Method
from dafne_dante.annotations.case import Case
from dafne_dante.delta.difference import take_difference
from dafne_dante.delta.noise import Noise
from dafne_dante.models.build import build_network, canonical_weights
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.plugin.fold_result import Trained, read_fold_result, write_fold_result
from dafne_dante.plugin.improvement_request import TrainingPart
from dafne_dante.plugin.interrupted import CHECKPOINT, fold_checkpoint, fold_result, forget
from dafne_dante.plugin.thrift import Thrift
from dafne_dante.training.averaging import named_tensors
from dafne_dante.training.checkpoint import identify_training
from dafne_dante.training.evaluate import OnCase
from dafne_dante.training.hardware import choose_device
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.loop import fit
from dafne_dante.training.prepared import Prepare, PreparedCase, prepare_cases
from dafne_dante.training.recipe import Recipe
from dafne_dante.training.replay import steps_with_replay, with_replay
from dafne_dante.training.run import scores_of

__all__ = ["Tuning", "train_fold", "train_last"]


@dataclass(frozen=True, eq=False)
class Tuning:
    """What to tune and how.

    Attributes:
        method: makes a new method, one for each training.
        out: folder for what an interruption leaves (see `interrupted`); None for nothing.
        on_epoch: is told every finished epoch, counted over all trainings, and how many there will be.
        on_stage: is told in words what is done.
        on_training: is told which training begins, and None when all are over.
        prepare: prepares cases, or remembers them.
        noise: how the update is clipped and noised before it leaves; None for not at all.
        on_measured: is told every held-out case and what the update, as it would be sent, makes of it.
        stop: whether to end with the best so far, see `loop.fit`.
        thrift: how to train where memory is short.
        look_at: what a method is shown before it begins; what it learns from when left out.
        carried: what this site's earlier updates left out, dense by weight.
    """

    base: GlobalModel
    method: Callable[[], Method]
    recipe: Recipe
    out: Path | None = None
    on_epoch: Callable[[EpochRecord, int], None] = lambda record, epochs: None
    on_stage: Callable[[str], None] = lambda words: None
    on_training: Callable[[TrainingPart | None], None] = lambda part: None
    prepare: Prepare = prepare_cases
    noise: Noise | None = None
    on_measured: OnCase = lambda case, prediction, dice: None
    stop: Callable[[], bool] = lambda: False
    thrift: Thrift = field(default_factory=Thrift)
    look_at: Sequence[Case] = ()
    carried: Mapping[str, Tensor] = field(default_factory=dict)


def train_last(
    tuning: Tuning,
    training: Sequence[Case],
    held_out: Sequence[Case],
    part: TrainingPart | None = None,
    *,
    replayed: Sequence[Case] = (),
) -> Trained:
    """The training whose weights leave; errors are those of `loop.fit`."""
    epochs = tuning.recipe.epochs
    begun = _begin(tuning, training, held_out, replayed)
    return _fit(tuning, begun, part or TrainingPart(epochs=epochs, all_epochs=epochs), _place(tuning, CHECKPOINT))


def train_fold(
    tuning: Tuning,
    training: Sequence[Case],
    held_out: Sequence[Case],
    part: TrainingPart,
    *,
    replayed: Sequence[Case] = (),
) -> Trained:
    """One fold, or what it came to where it was over before; errors are those of `loop.fit`."""
    begun = _begin(tuning, training, held_out, replayed)
    if tuning.out is None:
        return _fit(tuning, begun, part, None)
    result, checkpoint = fold_result(tuning.out, part.number), fold_checkpoint(tuning.out, part.number)
    identity = _identity(tuning, begun)
    if result.exists():
        tuning.on_stage(f"training {part.number} of {part.of} was over before")
        trained = read_fold_result(result, identity, tuning.base.weights)
    else:
        trained = _fit(tuning, begun, part, checkpoint)
        if tuning.stop():
            return trained  # nothing more is trained; the checkpoint is all that is needed
        write_fold_result(result, trained, identity)
    forget(checkpoint)
    return trained


@dataclass(frozen=True, eq=False)
class _Begun:
    """A training before its first epoch."""

    network: nn.Module
    method: Method
    training: Sequence[PreparedCase]
    held_out: Sequence[PreparedCase]
    recipe: Recipe


def _begin(tuning: Tuning, training: Sequence[Case], held_out: Sequence[Case], replayed: Sequence[Case]) -> _Begun:
    plan = tuning.base.plan
    network = build_network(plan, tuning.base.weights).to(choose_device())
    own, others = tuning.prepare(training, plan), tuning.prepare(replayed, plan)
    steps = steps_with_replay(tuning.recipe.steps_per_epoch, own, others)
    recipe = replace(tuning.recipe, steps_per_epoch=steps)
    return _Begun(network, tuning.method(), with_replay(own, others), tuning.prepare(held_out, plan), recipe)


def _identity(tuning: Tuning, begun: _Begun) -> str:
    """That of the checkpoint which `fit` would write."""
    choices = (tuning.thrift.plan_to_train_by(tuning.base.plan), begun.method, begun.recipe)
    return identify_training(choices, begun.training, begun.held_out, named_tensors(begun.network))


def _fit(tuning: Tuning, begun: _Begun, part: TrainingPart, checkpoint: Path | None) -> Trained:
    base = tuning.base

    def tell(record: EpochRecord) -> None:
        tuning.on_epoch(replace(record, epoch=part.done + record.epoch), part.all_epochs)

    tuning.on_training(part)
    result = fit(
        begun.network,
        tuning.thrift.plan_to_train_by(base.plan),
        begun.method,
        begun.training,
        begun.held_out,
        recipe=begun.recipe,
        on_epoch=tell,
        on_stage=tuning.on_stage,
        checkpoint=checkpoint,
        stop=tuning.stop,
        look_at=tuning.prepare(tuning.look_at, base.plan),
    )
    tuned = canonical_weights(base.plan, plain_weights(begun.network))
    before = canonical_weights(base.plan, base.weights)
    updates = take_difference(before, tuned, begun.method.factors(begun.network))
    return Trained(result, updates, _live(begun, result.history))


def _live(begun: _Begun, history: Sequence[EpochRecord]) -> tuple[str, ...]:
    """What could move, and from when on; gone through again, so that it is the same where a training was resumed."""
    found: list[str] = []
    for number, record in enumerate(history):
        scores = scores_of(history[:number])
        changed = begun.method.advance(begun.network, record.epoch, begun.recipe.epochs, scores)
        if changed or not found:
            begins = f"from epoch {record.epoch} on " if found else ""
            found.append(f"{begins}{begun.method.describe(begun.network)}")
    return tuple(found)


def _place(tuning: Tuning, name: str) -> Path | None:
    return None if tuning.out is None else tuning.out / name
