"""Our own methods of adaptation as a runner of cells.

Invariants: all fixed methods of a group see the same batches (one seed, one sampler) and as many of them; each has the
learning rate that `training.defaults` documents for it, decided by the base's Dice on the selection cases; test cases
are looked at when everything is chosen. What is tested is the base plus the update as its receiver would get it.

What `auto` has that the others have not, since it is what `improve` does: it chooses one of the others
(`training.choice`; not how long, its epochs are the cell's), and the selection cases decide how much of the update is
kept (a line search over its length). Where the target has the source's labels it also learns from two studies of the
source, as a site can whose operator ships some (`--replay`), half of its draws at most, in as many more steps: up to
twice the others'. So its batches are not theirs.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.method import method_named
from dafne_dante.adaptation.protocol import Method
from dafne_dante.annotations.case import Case
from dafne_dante.benchmark.beginning import as_begun, beginning_of
from dafne_dante.benchmark.outcome import CurvePoint, Outcome
from dafne_dante.benchmark.peak_memory import PeakMemory
from dafne_dante.benchmark.protocol import FROM_NOTHING, Cell, Effort
from dafne_dante.benchmark.splits import Split
from dafne_dante.delta.difference import WeightUpdate, take_difference
from dafne_dante.delta.encode import DeltaFacts, encode_delta, updates_as_sent
from dafne_dante.models.build import build_network, canonical_weights
from dafne_dante.models.file import serialise_model
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.plugin.apply import updated_model
from dafne_dante.plugin.tuning import at_best_step, smallest_updates
from dafne_dante.training.choice import AUTO, Situation, choose
from dafne_dante.training.defaults import recipe_for_adaptation
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device, remembered_numerics
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.loop import FitResult, fit
from dafne_dante.training.prepared import PreparedCase, prepare_cases
from dafne_dante.training.recipe import Recipe
from dafne_dante.training.replay import steps_with_replay, with_replay

__all__ = ["OwnMethods"]

_Dice = Mapping[str, float | None]


@dataclass(frozen=True)
class OwnMethods:
    """Runs `adaptation.method.METHOD_NAMES`.

    `cache` remembers for all cells which numerics are fastest here, and what bases can do before they learn.
    """

    effort: Effort
    cache: Path

    def run(self, cell: Cell, split: Split, base_model: GlobalModel, folder: Path) -> Outcome:
        """Train and measure, see Runner; errors are those of `fit`."""
        same_labels = base_model.plan.labels == split.training[0].labels
        base = as_begun(base_model, split.training[0].labels, cell.seed)
        before = beginning_of(self.cache, cell.target, base, split, source_labels=same_labels)
        network = _network(base)
        method_name, options, recipe = self._recipe(cell, base, network, split, zero_shot=before.selection)
        is_auto = cell.method == AUTO
        method = method_named(method_name, **options)
        selection = prepare_cases(split.selection, base.plan)
        replay = split.replay if is_auto and same_labels else ()
        own, others = (prepare_cases(cases, base.plan) for cases in (split.training, replay))
        training = with_replay(own, others)
        recipe = replace(recipe, steps_per_epoch=steps_with_replay(recipe.steps_per_epoch, own, others))
        with PeakMemory(choose_device()) as memory:
            result, curve = _fit(network, base, method, training, selection, recipe=recipe)
        updates = _updates(base, network, method, selection, search=is_auto)
        received = _received(base, network, updates)
        tested = _network(received)
        dice = evaluate_cases(tested, received.plan, split.test)
        facts = _facts(base, cell, len(split.training), before.test, dice)
        return Outcome(
            dice=dice,
            zero_shot=before.test["mean"],
            curve=curve,
            best_epoch=result.best_epoch,
            learning_rate=recipe.learning_rate,
            trainable_parameters=max(record.trainable_parameters for record in result.history),
            sent_bytes=_sent_bytes(received, updates, facts),
            peak_bytes=memory.peak_bytes,
            source_before=before.source,
            source_after=_mean(tested, received, split.source_test) if same_labels else None,
        )

    def _recipe(
        self, cell: Cell, base: GlobalModel, network: nn.Module, split: Split, *, zero_shot: float
    ) -> tuple[str, dict[str, int], Recipe]:
        """Name and options of the method, and how to train."""
        effort = self.effort
        name, options = cell.method, {}
        if name == AUTO:
            choice = choose(Situation(len(set(split.subjects.training)), zero_shot, dimensions=base.plan.dimensions))
            name, options = choice.method, {"rank": choice.rank} if choice.method == "lora" else {}
        recipe = recipe_for_adaptation(
            name,
            zero_shot,
            epochs=effort.epochs,
            seed=cell.seed,
            numerics=remembered_numerics(network, base.plan, effort.batch_size, self.cache),
            dimensions=base.plan.dimensions,
        )
        return name, options, replace(recipe, steps_per_epoch=effort.steps_per_epoch, batch_size=effort.batch_size)


def _fit(
    network: nn.Module,
    base: GlobalModel,
    method: Method,
    training: Sequence[PreparedCase],
    selection: list[PreparedCase],
    *,
    recipe: Recipe,
) -> tuple[FitResult, tuple[CurvePoint, ...]]:
    points: list[CurvePoint] = []
    begin = time.process_time()

    def note(record: EpochRecord) -> None:
        points.append(
            CurvePoint(record.epoch, record.seconds, time.process_time() - begin, record.dice.get("mean"))
        )  # fmt: skip

    result = fit(network, base.plan, method, training, selection, recipe=recipe, on_epoch=note)
    return result, tuple(points)


def _updates(
    base: GlobalModel, network: nn.Module, method: Method, selection: list[PreparedCase], *, search: bool
) -> tuple[WeightUpdate, ...] | None:
    """What would be sent, at its best length where that is searched for.

    None of a method that forgets the base, from which no update leads to what it made.
    """
    if method.name in FROM_NOTHING:
        return None
    tuned = canonical_weights(base.plan, plain_weights(network))
    updates = take_difference(canonical_weights(base.plan, base.weights), tuned, method.factors(network))
    if search:
        updates = at_best_step(base, updates, selection)
    return smallest_updates(base, updates, selection)


def _received(base: GlobalModel, network: nn.Module, updates: tuple[WeightUpdate, ...] | None) -> GlobalModel:
    """The model that the receiver has."""
    if updates is None:
        return replace(base, weights=plain_weights(network))
    return updated_model(base, updates_as_sent(updates), timestamp=base.timestamp)


def _sent_bytes(received: GlobalModel, updates: tuple[WeightUpdate, ...] | None, facts: DeltaFacts) -> int:
    """The signed delta's, or the model file's."""
    if updates is None:
        return len(serialise_model(received))
    return len(encode_delta(updates, facts, Ed25519PrivateKey.generate()))


def _facts(base: GlobalModel, cell: Cell, cases: int, before: _Dice, after: _Dice) -> DeltaFacts:
    return DeltaFacts(
        model_type="Benchmark",
        model_id=base.model_id,
        base_timestamp=str(base.timestamp),
        base_sha256=digest_weights(base.weights),
        method=cell.method,
        cases=cases,
        labels=base.plan.labels,
        dice_before=before,
        dice_after=after,
    )


def _network(model: GlobalModel) -> nn.Module:
    return build_network(model.plan, model.weights).to(choose_device())


def _mean(network: nn.Module, model: GlobalModel, cases: tuple[Case, ...]) -> float | None:
    return evaluate_cases(network, model.plan, cases)["mean"]
