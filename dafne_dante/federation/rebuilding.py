"""The newest version once more without some updates, from the ledger and the archived updates.

Terms: the *start* is the version from which the first that holds one of the updates was merged. Every merge after it is
done again, in order, on what the one before came to: the same updates but for those left out and those withdrawn, with
the ages that they had.

Invariants
- Nothing is published that was not tried on cases that show a label: each merge done again has the gate of a merge, and
  what does not pass it is left out and told. The new version's lineage goes back to the start, so that it holds neither
  what was left out nor anything made of it.
- The versions that hold the updates stay listed, as stock clients may have them; the ledger says which hold what.
- One operator at a time; a crash leaves what a crash of a merge leaves.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dafne_dante.annotations.case import Case
from dafne_dante.config import Settings
from dafne_dante.errors import DeltaError, SettingsError
from dafne_dante.federation.beginning import begin
from dafne_dante.federation.contribution import Contribution
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.intake import Intake
from dafne_dante.federation.known_versions import KnownVersions
from dafne_dante.federation.ledger import Entry, Ledger, Publication
from dafne_dante.federation.merge import choose_step
from dafne_dante.federation.operator_turn import operator_scratch, operator_turn
from dafne_dante.federation.publishing import Statement, utc_now
from dafne_dante.federation.validation_cases import usable_cases
from dafne_dante.federation.weighted_median import rule_of
from dafne_dante.federation.withdrawn import versions_that_hold
from dafne_dante.models.build import build_network, canonical_weights, tie_aliases
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device
from dafne_dante.types import Weights

__all__ = ["Rebuilt", "rebuild_without"]

Dice = Mapping[str, float | None]


@dataclass(frozen=True)
class Rebuilt:
    """What came of it.

    Attributes:
        version: the new one.
        start: the version that it was built on.
        kept, left_out: update_ids; of those left out, also what did not pass the gate without them.
        dice_before, dice_after: of the version that was the newest, and of the new one, on the operator's cases.
    """

    version: str
    start: str
    kept: tuple[str, ...]
    left_out: tuple[str, ...]
    dice_before: Dice
    dice_after: Dice


def rebuild_without(
    depot: Depot,
    model_type: str,
    update_ids: Collection[str],
    validation: Sequence[Case],
    settings: Settings,
    *,
    statement: Statement | None = None,
) -> Rebuilt:
    """Publish the newest version without these updates, as a new version.

    Raises:
        SettingsError: the newest version holds none of them, nothing else is left, or it cannot be built again: the
            first that holds one was not merged by this operator, or a model was handed in since.
        UntrustedVersionError, TransportError, StorageError, IncompatibleModelError, NotEnoughCasesError: as
            `merge_pending`.
    """
    with operator_turn(settings.folder, model_type), operator_scratch(settings.folder, model_type) as scratch:
        return _Rebuild(depot, model_type, settings, scratch).run(set(update_ids), validation, statement)


class _Rebuild:
    def __init__(self, depot: Depot, model_type: str, settings: Settings, scratch: Path) -> None:
        self._settings, self._scratch = settings, scratch
        self._known = KnownVersions(depot, scratch)
        begun = begin(depot, model_type, settings, self._known)
        self._store, self._publisher, self._ledger = begun.store, begun.publisher, begun.ledger
        self._intake = Intake(self._known, settings, scratch, take_full_models=True)

    def run(self, without: set[str], validation: Sequence[Case], statement: Statement | None) -> Rebuilt:
        newest = self._known.newest
        start, merges = self._plan(newest, without)
        model = self._known.model(start)
        cases = usable_cases(validation, model.plan.labels)
        weights: Weights = canonical_weights(model.plan, model.weights)
        kept: dict[str, Entry] = {}
        failed: list[str] = []
        for version, batch in merges:
            moved = self._merged(model, weights, version, batch, cases, held=self._ledger.held_by(start) | kept)
            if moved is None:
                failed += sorted(batch)
            else:
                weights, kept = moved, kept | batch
        if not kept:
            raise SettingsError(f"expected other updates to be left, found none; publish rollback {start} does it")
        before, after = (
            _dice(model, one, cases) for one in (canonical_weights(model.plan, self._known.current.weights), weights)
        )
        words = (statement or Statement()).after(self._ledger)
        told = Publication(
            "rebuilt", utc_now(), start, step=1.0, dice_before=dict(before), dice_after=dict(after),
            validation_cases=len(cases), intended_use=words.intended_use, licence=words.licence,
        )  # fmt: skip
        rebuilt = replace(model, weights=tie_aliases(model.plan, weights))
        self._ledger, version = self._publisher.publish(
            rebuilt, self._ledger, told, updates=kept, scratch=self._scratch, current=self._known.current
        )
        self._publisher.write_cards(self._ledger, rebuilt)
        return Rebuilt(version, start, tuple(sorted(kept)), (*sorted(without), *failed), before, after)

    def _plan(self, newest: str, without: set[str]) -> tuple[str, list[tuple[str, dict[str, Entry]]]]:
        """The version to build on, and every merge to do again with its updates."""
        ledger, line = self._ledger, self._ledger.lineage(newest)
        holding = {one for update_id in without for one in versions_that_hold(ledger, update_id)} & set(line)
        if not holding:
            raise SettingsError("expected an update that the newest version holds, found none; see publish show")
        first = min(holding, key=int)
        again = [one for one in reversed(line) if int(one) >= int(first)]
        kinds = {one: told.kind if (told := ledger.publications.get(one)) else "" for one in again}
        start = ledger.publications[first].previous if kinds[first] else ""
        if not start or start not in self._known.versions or not set(kinds.values()) <= {"merge", "rebuilt"}:
            raise SettingsError(
                f"expected merges only from version {first} on, found others, or versions that are no longer kept; "
                "publish rollback brings back a version that does not hold the update"
            )
        if not all(entry.base_sha256 in self._known.ages for entry in ledger.held_by(newest).values()):
            raise SettingsError(
                "expected the bases of all updates to be kept, found some that are too old; publish rollback brings "
                "back a version that does not hold the update"
            )
        return start, [(one, self._batch(ledger, one, without)) for one in again]

    def _batch(self, ledger: Ledger, version: str, without: set[str]) -> dict[str, Entry]:
        return {
            update_id: entry
            for update_id, entry in ledger.updates.items()
            if entry.is_first_in(version) and update_id not in without and not entry.withdrawn
        }

    def _merged(
        self,
        model: GlobalModel,
        weights: Weights,
        version: str,
        batch: Mapping[str, Entry],
        cases: Sequence[Case],
        *,
        held: Mapping[str, Entry],
    ) -> "Weights | None":
        """The weights after one merge done again; None where nothing is left of it, or it does not pass its gate."""
        bases = {entry.base_sha256 for entry in batch.values()}
        older = {update_id: entry for update_id, entry in held.items() if entry.base_sha256 in bases}
        contributions = [
            self._contribution(update_id, entry, version, published=update_id in older)
            for update_id, entry in (older | dict(batch)).items()
        ]
        if not batch:
            return weights
        try:
            outcome = choose_step(
                weights,
                contributions,
                lambda one: _dice(model, one, cases),
                self._settings.dice_margin,
                rule_of(self._settings.merge_rule),
            )
        except DeltaError:
            return None
        return outcome.weights if outcome.step > 0 else None

    def _contribution(self, update_id: str, entry: Entry, version: str, *, published: bool) -> Contribution:
        """As it was when `version` was merged."""
        made = self._intake.archived(update_id, entry, self._store.archived(update_id))
        later = len([one for one in self._known.versions if int(one) >= int(version)])
        return replace(made, age=max(0, made.age - later), published=published)


def _dice(model: GlobalModel, weights: Weights, cases: Sequence[Case]) -> Dice:
    network = build_network(model.plan, tie_aliases(model.plan, weights)).to(choose_device())
    return evaluate_cases(network, model.plan, cases)
