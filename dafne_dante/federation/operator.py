"""One merge, from the queue of uploads to the next global model.

settle what a crash left -> read the current model -> admit or quarantine every upload -> merge in update space ->
try the step on the operator's cases -> publish, or quarantine with the reason -> clear the queue.

Invariants
- An upload leaves the queue only after its delta is archived and published, or quarantined with a reason; what
  cannot be taken never blocks what can.
- A crash at any point is settled by the next run: an update is published once or not at all.
- Nothing from an upload is executed or unpickled; an upload that is no delta is quarantined unread.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dafne_dante.annotations.case import Case
from dafne_dante.config import Settings
from dafne_dante.delta.decode import Delta, decode_delta
from dafne_dante.delta.signing import trusted_keys
from dafne_dante.durable import read_bounded
from dafne_dante.errors import DeltaError, IncompatibleModelError, ServerAnswerError
from dafne_dante.federation.admission import admit
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.ledger import Entry, Ledger, Store
from dafne_dante.federation.merge import Contribution, MergeOutcome, choose_step, contribution_from
from dafne_dante.models.build import build_network, canonical_weights, tie_aliases
from dafne_dante.models.file import read_model, write_model
from dafne_dante.models.global_model import digest_weights
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device
from dafne_dante.types import Weights

__all__ = ["MergeReport", "Refusal", "merge_pending"]

_MAX_DELTA_BYTES = 2 * 1024**3
_KEPT_VERSIONS = 20


@dataclass(frozen=True)
class Refusal:
    """An upload that was quarantined, and why."""

    upload: str
    reason: str


@dataclass(frozen=True)
class MergeReport:
    """What a merge came to.

    Attributes:
        merged: uploads that took part in what was published.
        quarantined: those that were refused.
        step: the step taken, 0 when nothing was published.
        version: the new version, None when nothing was published.
        dice_before, dice_after: on the operator's cases; empty when nothing was tried.
        reason: one sentence.
    """

    merged: int = 0
    quarantined: tuple[Refusal, ...] = ()
    step: float = 0.0
    version: str | None = None
    dice_before: Mapping[str, float | None] = field(default_factory=dict)
    dice_after: Mapping[str, float | None] = field(default_factory=dict)
    reason: str = "no update waits"

    def as_json(self) -> dict[str, Any]:
        """Plain Python values."""
        return {**asdict(self), "quarantined": [asdict(one) for one in self.quarantined]}


@dataclass(frozen=True, eq=False)
class _Admitted:
    upload: str
    content: bytes
    delta: Delta


class _Bases(Mapping[str, Weights]):
    """Digest of a version's weights to the weights, read from the depot only when asked for."""

    def __init__(self, depot: Depot, versions: Sequence[str], digests: Mapping[str, str], folder: Path) -> None:
        self._depot, self._folder = depot, folder
        self.ages = {digests[version]: age for age, version in enumerate(reversed(versions)) if version in digests}
        self._versions = {digests[version]: version for version in versions if version in digests}

    def __getitem__(self, digest: str) -> Weights:
        version = self._versions[digest]
        return read_model(self._depot.fetch_model(version, self._folder / f"base-{version}.model")).weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._versions)

    def __len__(self) -> int:
        return len(self._versions)


def merge_pending(depot: Depot, model_type: str, validation: Sequence[Case], settings: Settings) -> MergeReport:
    """Merge everything that waits for one model type, once.

    `validation` are the operator's own labelled cases; the merger's folder lies in the settings' folder.

    Raises:
        TransportError, StorageError: what was not settled yet stays in the queue.
        ServerAnswerError: the type has no version yet.
        IncompatibleModelError: the operator's cases have other labels than the model.
    """
    with tempfile.TemporaryDirectory(prefix="dafne-dante-") as scratch:
        return _Merge(depot, model_type, validation, settings, Path(scratch)).run()


class _Merge:
    """One run; the ledger is replaced on disk before every step that cannot be taken back."""

    def __init__(
        self, depot: Depot, model_type: str, validation: Sequence[Case], settings: Settings, scratch: Path
    ) -> None:
        self._depot, self._validation, self._settings, self._scratch = depot, validation, settings, scratch
        self._store = Store(settings.folder / "operator" / model_type)
        self._ledger = self._store.load()
        self._versions = depot.versions()[-_KEPT_VERSIONS:]
        if not self._versions:
            raise ServerAnswerError(f"expected a published version of {model_type}, found none; publish one first")
        self._current = read_model(depot.fetch_model(self._versions[-1], scratch / "current.model"))
        self._refusals: list[Refusal] = []

    def run(self) -> MergeReport:
        """Settle, admit, merge, publish."""
        self._settle()
        bases = self._bases()
        admitted = self._admit_all(bases)
        if not admitted:
            reason = "no update could be taken" if self._refusals else MergeReport.reason
            return MergeReport(quarantined=tuple(self._refusals), reason=reason)
        outcome = choose_step(
            canonical_weights(self._current.plan, self._current.weights),
            [*self._contributions(admitted, bases)],
            self._evaluate,
            self._settings.dice_margin,
        )
        return self._publish(admitted, outcome) if outcome.step > 0 else self._refuse_batch(admitted, outcome)

    def _settle(self) -> None:
        """Finish, or drop, what a run before this one was about to publish."""
        if not self._ledger.intent_sha256:
            return
        if digest_weights(self._current.weights) == self._ledger.intent_sha256:
            self._save(self._ledger.settled(self._versions[-1]))
        else:
            self._save(self._ledger.dropped())

    def _bases(self) -> _Bases:
        """The kept versions by the digest of their weights; a version is read once in the operator's life."""
        known = dict(self._ledger.versions)
        known[self._versions[-1]] = digest_weights(self._current.weights)
        for version in self._versions:
            if version not in known:
                path = self._depot.fetch_model(version, self._scratch / "version.model")
                known[version] = digest_weights(read_model(path).weights)
        self._save(replace(self._ledger, versions=known))
        return _Bases(self._depot, self._versions, known, self._scratch)

    def _admit_all(self, bases: _Bases) -> list[_Admitted]:
        """Admit or quarantine each upload, oldest first; one that was published before only leaves the queue."""
        admitted: dict[str, _Admitted] = {}
        for upload in self._depot.pending():
            path = self._depot.fetch_upload(upload.filename, self._scratch / "upload.delta")
            content = read_bounded(path, max_bytes=_MAX_DELTA_BYTES)
            try:
                delta = self._admit(content, bases, admitted)
            except (DeltaError, IncompatibleModelError) as error:
                self._refuse(upload.filename, content, str(error))
            else:
                admitted[delta.manifest.update_id] = _Admitted(upload.filename, content, delta)
        return list(admitted.values())

    def _admit(self, content: bytes, bases: _Bases, admitted: Mapping[str, _Admitted]) -> Delta:
        return admit(
            content,
            bases=bases,
            trusted_keys=trusted_keys(self._settings.folder),
            seen_update_ids={*self._ledger.updates, *admitted},
            model_id=self._current.model_id,
            labels=self._current.plan.labels,
            max_norm_ratio=self._settings.max_norm_ratio,
        )

    def _contributions(self, admitted: Sequence[_Admitted], bases: _Bases) -> Iterator[Contribution]:
        """The new updates, and those of the same bases that moved earlier versions."""
        groups = {one.delta.manifest.base_sha256 for one in admitted}
        for one in admitted:
            yield contribution_from(one.delta, age=bases.ages[one.delta.manifest.base_sha256])
        earlier = [
            update_id
            for update_id, entry in self._ledger.updates.items()
            if entry.version and entry.base_sha256 in groups
        ]
        for content in self._store.archived(earlier).values():
            delta = decode_delta(content, base=None, trusted_keys=None)
            yield contribution_from(delta, age=bases.ages[delta.manifest.base_sha256], published=True)

    def _evaluate(self, weights: Weights) -> Mapping[str, float | None]:
        plan = self._current.plan
        network = build_network(plan, tie_aliases(plan, weights)).to(choose_device())
        return evaluate_cases(network, plan, self._validation)

    def _publish(self, admitted: Sequence[_Admitted], outcome: MergeOutcome) -> MergeReport:
        weights: Mapping[str, Tensor] = tie_aliases(self._current.plan, outcome.weights)
        merged = replace(self._current, weights=weights, timestamp=int(time.time()))
        path = self._scratch / "merged.model"
        write_model(merged, path)
        for one in admitted:
            self._store.archive(one.delta.manifest.update_id, one.content)
        intent = {one.delta.manifest.update_id: _entry(one.delta) for one in admitted}
        self._save(self._ledger.with_intent(digest_weights(weights), intent))
        version = self._depot.publish(path)
        self._save(self._ledger.settled(version))
        for one in admitted:
            self._depot.remove_upload(one.upload)
        return MergeReport(
            merged=len(admitted),
            quarantined=tuple(self._refusals),
            step=outcome.step,
            version=version,
            dice_before=outcome.dice_before,
            dice_after=outcome.dice_after,
            reason=outcome.reason,
        )

    def _refuse_batch(self, admitted: Sequence[_Admitted], outcome: MergeOutcome) -> MergeReport:
        for one in admitted:
            self._save(self._ledger.refused(one.delta.manifest.update_id, _entry(one.delta)))
            self._refuse(one.upload, one.content, outcome.reason)
        return MergeReport(
            quarantined=tuple(self._refusals),
            dice_before=outcome.dice_before,
            dice_after=outcome.dice_after,
            reason=outcome.reason,
        )

    def _refuse(self, upload: str, content: bytes, reason: str) -> None:
        self._store.quarantine(upload, content, reason)
        self._depot.remove_upload(upload)
        self._refusals.append(Refusal(upload, reason))

    def _save(self, ledger: Ledger) -> None:
        self._store.save(ledger)
        self._ledger = ledger


def _entry(delta: Delta) -> Entry:
    return Entry(delta.manifest.base_sha256, delta.public_key)
