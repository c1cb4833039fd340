"""One merge, from the queue of uploads to the next global model.

read the current model -> settle what a crash left -> admit or quarantine every upload -> merge in update space ->
try the step on the operator's cases -> publish, or quarantine with the reason -> clear the queue.

Invariants
- An upload leaves the queue only after its delta is archived and published, or quarantined with a reason; what
  cannot be taken never blocks what can. When a batch fails on the operator's cases, each update is tried alone, and
  those that fail alone do not take the others with them.
- A crash at any point is settled by the next run: an update is published once or not at all. What is known of a
  publish is read from the digest of the published weights, not from the answer to the call.
- Nothing is published that was not tried on cases that show a label.
- Nothing from an upload is executed or unpickled; an upload that is no delta is quarantined unread.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.labels import label_key
from dafne_dante.config import Settings
from dafne_dante.delta.decode import Delta, decode_delta
from dafne_dante.delta.difference import check_fit
from dafne_dante.delta.signing import trusted_keys
from dafne_dante.durable import read_bounded
from dafne_dante.errors import (
    DeltaError,
    DeltaShapeError,
    IncompatibleModelError,
    NotEnoughCasesError,
    ServerAnswerError,
    SettingsError,
    StorageError,
)
from dafne_dante.federation.admission import admit
from dafne_dante.federation.client import PendingUpload
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.ledger import Entry, Ledger, Store
from dafne_dante.federation.merge import Contribution, MergeOutcome, choose_step, contribution_from
from dafne_dante.federation.shelf import Shelf
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
    """An upload that was not taken, and why."""

    upload: str
    reason: str


@dataclass(frozen=True)
class MergeReport:
    """What a merge came to.

    Attributes:
        merged: uploads that took part in what was published.
        quarantined: those that were refused.
        skipped: those that the depot could not hand out; they stay in the queue.
        step: the step taken, 0 when nothing was published.
        version: the new version, None when nothing was published.
        dice_before, dice_after: on the operator's cases; empty when nothing was tried.
        reason: one sentence.
    """

    merged: int = 0
    quarantined: tuple[Refusal, ...] = ()
    skipped: tuple[Refusal, ...] = ()
    step: float = 0.0
    version: str | None = None
    dice_before: Mapping[str, float | None] = field(default_factory=dict)
    dice_after: Mapping[str, float | None] = field(default_factory=dict)
    reason: str = "no update waits"

    def as_json(self) -> dict[str, Any]:
        """Plain Python values."""
        return {**asdict(self), **{name: [*map(asdict, getattr(self, name))] for name in ("quarantined", "skipped")}}


@dataclass(frozen=True, eq=False)
class _Admitted:
    upload: str
    content: bytes
    delta: Delta

    @property
    def update_id(self) -> str:
        return self.delta.manifest.update_id

    @property
    def entry(self) -> Entry:
        digest = hashlib.sha256(self.content).hexdigest()
        return Entry(self.delta.manifest.base_sha256, self.delta.public_key, self.upload, digest)


class _Bases(Mapping[str, Weights]):
    """Digest of a version's weights to the weights, read from the depot only when asked for."""

    def __init__(self, depot: Depot, versions: Sequence[str], digests: Mapping[str, str], folder: Path) -> None:
        self._depot, self._folder = depot, folder
        # Where two versions have the same weights the newer one counts.
        self._versions = {digests[version]: version for version in versions}
        self.ages = {digests[version]: len(versions) - 1 - place for place, version in enumerate(versions)}

    def __getitem__(self, digest: str) -> Weights:
        version = self._versions[digest]
        return read_model(self._depot.fetch_model(version, self._folder / "base.model")).weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._versions)

    def __len__(self) -> int:
        return len(self._versions)


def merge_pending(depot: Depot, model_type: str, validation: Sequence[Case], settings: Settings) -> MergeReport:
    """Merge everything that waits for one model type, once.

    `validation` are the operator's own labelled cases, with the model's labels in any order; the merger's folder lies
    in the settings' folder.

    Raises:
        TransportError, StorageError: what was not settled yet stays in the queue.
        ServerAnswerError: the type has no version yet.
        SettingsError: a malformed type's name.
        IncompatibleModelError: the operator's cases have other labels than the model.
        NotEnoughCasesError: no case of the operator shows a label.
    """
    if not Shelf.is_type_name(model_type):
        raise SettingsError("expected a type's name of letters, digits, spaces, hyphens and (); check --type")
    with tempfile.TemporaryDirectory(prefix="dafne-dante-") as scratch:
        return _Merge(depot, model_type, validation, settings, Path(scratch)).run()


class _Merge:
    """One run; the ledger is replaced on disk before every step that cannot be taken back."""

    def __init__(
        self, depot: Depot, model_type: str, validation: Sequence[Case], settings: Settings, scratch: Path
    ) -> None:
        self._depot, self._settings, self._scratch = depot, settings, scratch
        self._versions = depot.versions()[-_KEPT_VERSIONS:]
        if not self._versions:
            raise ServerAnswerError(f"expected a published version of {model_type}, found none; publish one first")
        self._current = read_model(depot.fetch_model(self._versions[-1], scratch / "current.model"))
        self._canonical = canonical_weights(self._current.plan, self._current.weights)
        self._validation = _usable_cases(validation, self._current.plan.labels)
        self._trusted = trusted_keys(settings.folder)
        self._store = Store(settings.folder / "operator" / model_type)
        self._ledger = self._store.load()
        self._refusals: list[Refusal] = []
        self._skipped: list[Refusal] = []

    def run(self) -> MergeReport:
        """Settle, admit, merge, publish."""
        digests = self._digests()
        self._settle(digests)
        bases = _Bases(self._depot, self._versions, digests, self._scratch)
        admitted = self._admit_all(bases)
        if not admitted:
            reason = "no update could be taken" if self._refusals or self._skipped else MergeReport.reason
            return self._report(reason=reason)
        outcome = self._try(admitted, bases)
        if outcome.step == 0 and len(admitted) > 1:
            admitted, outcome = self._without_spoilers(admitted, bases, outcome)
        if outcome.step > 0:
            return self._publish(admitted, outcome)
        for one in admitted:
            self._refuse_admitted(one, outcome.reason)
        return self._report(outcome)

    def _digests(self) -> dict[str, str]:
        """The kept versions' digests of weights; a version is read once in the operator's life."""
        known = {version: self._ledger.versions.get(version) for version in self._versions[:-1]}
        found = {version: digest or self._digest_of(version) for version, digest in known.items()}
        return {**found, self._versions[-1]: digest_weights(self._current.weights)}

    def _digest_of(self, version: str) -> str:
        return digest_weights(read_model(self._depot.fetch_model(version, self._scratch / "version.model")).weights)

    def _settle(self, digests: Mapping[str, str]) -> None:
        """Finish, or drop, what a run before this one was about to publish, and remember the versions."""
        ledger = self._ledger
        if ledger.intent_sha256:
            # Not only the newest: somebody may have published since.
            came_true = [
                version
                for version, digest in digests.items()
                if version not in ledger.versions and digest == ledger.intent_sha256
            ]
            ledger = ledger.settled(came_true[0]) if came_true else ledger.dropped()
        self._save(replace(ledger, versions={**ledger.versions, **digests}))

    def _admit_all(self, bases: _Bases) -> list[_Admitted]:
        """Admit or quarantine each upload, oldest first; one that a crash left in the queue only leaves it."""
        admitted: dict[str, _Admitted] = {}
        done = {(entry.upload, entry.content_sha256) for entry in self._ledger.updates.values()}
        for upload in self._depot.pending():
            content = self._fetch(upload)
            if content is None:
                continue
            if (upload.filename, hashlib.sha256(content).hexdigest()) in done:
                self._depot.remove_upload(upload.filename)
                continue
            try:
                delta = self._admit(content, bases, admitted)
            except (DeltaError, IncompatibleModelError) as error:
                self._refuse(upload.filename, content, str(error))
            else:
                admitted[delta.manifest.update_id] = _Admitted(upload.filename, content, delta)
        return list(admitted.values())

    def _fetch(self, upload: PendingUpload) -> bytes | None:
        """The upload's bytes; None, with a note in the report, when the depot cannot hand it out, or it is too long."""
        reason = f"expected at most {_MAX_DELTA_BYTES} bytes, found {upload.size}; remove it by hand"
        if upload.size <= _MAX_DELTA_BYTES:
            try:
                path = self._depot.fetch_upload(upload.filename, self._scratch / "upload.delta")
                return read_bounded(path, max_bytes=_MAX_DELTA_BYTES)
            except ServerAnswerError as error:  # gone meanwhile, or longer than it said
                reason = str(error)
        self._skipped.append(Refusal(upload.filename, reason))
        return None

    def _admit(self, content: bytes, bases: _Bases, admitted: Mapping[str, _Admitted]) -> Delta:
        delta = admit(
            content,
            bases=bases,
            trusted_keys=self._trusted,
            seen_update_ids={*self._ledger.updates, *admitted},
            model_id=self._current.model_id,
            labels=self._current.plan.labels,
            max_norm_ratio=self._settings.max_norm_ratio,
        )
        # Its base was another version: it must fit this one too, and must not name a tensor by an alias.
        for update in delta.updates:
            target = self._canonical.get(update.weight)
            if target is None or not target.is_floating_point():
                raise DeltaShapeError("expected updates of the current model's weights, found one of another; retrain")
            check_fit(update, tuple(target.shape))
        return delta

    def _try(self, admitted: Sequence[_Admitted], bases: _Bases) -> MergeOutcome:
        """The longest step that the operator's cases allow; 0 when the updates cannot be added up at all."""
        contributions = [*self._contributions(admitted, bases)]
        try:
            return choose_step(self._canonical, contributions, self._evaluate, self._settings.dice_margin)
        except DeltaError as error:
            return MergeOutcome(0.0, self._canonical, {}, {}, str(error), ())

    def _without_spoilers(
        self, admitted: list[_Admitted], bases: _Bases, failed: MergeOutcome
    ) -> tuple[list[_Admitted], MergeOutcome]:
        """Refuse the updates that fail alone, and try the others again; all that is left and what came of it."""
        alone = [(one, self._try([one], bases)) for one in admitted]
        good = [one for one, outcome in alone if outcome.step > 0]
        if not 0 < len(good) < len(admitted):
            return admitted, failed
        for one, outcome in alone:
            if outcome.step == 0:
                self._refuse_admitted(one, outcome.reason)
        return good, self._try(good, bases)

    def _contributions(self, admitted: Sequence[_Admitted], bases: _Bases) -> Iterator[Contribution]:
        """The new updates, and those of the same bases that moved earlier versions."""
        groups = {one.delta.manifest.base_sha256 for one in admitted}
        for one in admitted:
            yield contribution_from(one.delta, age=bases.ages[one.delta.manifest.base_sha256])
        for update_id, entry in self._ledger.updates.items():
            if entry.version and entry.base_sha256 in groups:
                delta = self._archived(update_id)
                yield contribution_from(delta, age=bases.ages[entry.base_sha256], published=True)

    def _archived(self, update_id: str) -> Delta:
        try:
            return decode_delta(self._store.archived(update_id), base=None, trusted_keys=None)
        except DeltaError as error:
            raise StorageError("an archived update is damaged; restore the archive from a copy") from error

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
            self._store.archive(one.update_id, one.content)
        self._save(self._ledger.with_intent(digest_weights(weights), {one.update_id: one.entry for one in admitted}))
        version = self._depot.publish(path)
        self._save(self._ledger.settled(version))
        for one in admitted:
            self._depot.remove_upload(one.upload)
        return self._report(outcome, merged=len(admitted), version=version)

    def _report(
        self, outcome: MergeOutcome | None = None, *, reason: str = "", merged: int = 0, version: str | None = None
    ) -> MergeReport:
        return MergeReport(
            merged=merged,
            quarantined=tuple(self._refusals),
            skipped=tuple(self._skipped),
            step=outcome.step if outcome else 0.0,
            version=version,
            dice_before=outcome.dice_before if outcome else {},
            dice_after=outcome.dice_after if outcome else {},
            reason=outcome.reason if outcome else reason,
        )

    def _refuse_admitted(self, one: _Admitted, reason: str) -> None:
        """Quarantine an update that was well-formed; its id is not taken again."""
        self._store.quarantine(one.upload, one.content, reason)
        self._save(self._ledger.refused(one.update_id, one.entry))
        self._take_off(one.upload, reason)

    def _refuse(self, upload: str, content: bytes, reason: str) -> None:
        self._store.quarantine(upload, content, reason)
        self._take_off(upload, reason)

    def _take_off(self, upload: str, reason: str) -> None:
        self._depot.remove_upload(upload)
        self._refusals.append(Refusal(upload, reason))

    def _save(self, ledger: Ledger) -> None:
        self._store.save(ledger)
        self._ledger = ledger


def _usable_cases(cases: Sequence[Case], labels: tuple[str, ...]) -> list[Case]:
    """The cases with their labels in the model's order, at least one of which shows a label."""
    usable = [_relabelled(case, labels) for case in cases]
    if not any(case.segmentation[..., case.annotated].any() for case in usable):
        raise NotEnoughCasesError("expected the operator's cases to show a label, found none; nothing can be tried")
    return usable


def _relabelled(case: Case, labels: tuple[str, ...]) -> Case:
    """The case with its segmentation in the order of `labels`, matched by name as `annotations.folders` does."""
    places = {label_key(name): place for place, name in enumerate(labels, start=1)}
    keys = [label_key(name) for name in case.labels]
    if set(keys) != set(places):
        raise IncompatibleModelError(
            f"expected the operator's cases labelled {', '.join(labels)}, found {', '.join(case.labels)}"
        )
    translation = np.array([0, *(places[key] for key in keys)], dtype=np.uint8)
    return replace(case, segmentation=translation[case.segmentation], labels=labels)
