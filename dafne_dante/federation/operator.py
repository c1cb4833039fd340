"""One merge, from the queue of uploads to the next global model.

read the current model -> settle what a crash left, and check that it is the operator's (`beginning`) -> take the
sites' withdrawals -> admit or quarantine every upload -> merge in update space -> try the step on the operator's cases
-> publish, or quarantine with the reason -> clear the queue.

Invariants
- An upload leaves the queue only after its file is archived and published, or quarantined with a reason, or when its
  site withdrew it; what cannot be taken never blocks what can. When a batch fails on the operator's cases, who is to
  blame is found by leaving each update out (`leaving_out`), and the others are merged.
- A crash at any point is settled by the next run: an update is published once or not at all. What is known of a
  publish is read from the digest of the published weights, not from the answer to the call.
- Nothing is published that was not tried on cases that show a label.
- Nothing from an upload is executed or unpickled by the usual way; what is neither a delta nor a model that the safe
  reader takes is quarantined.
- One operator at a time (`operator_turn`); memory does not grow with the number of updates.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from dafne_dante.annotations.case import Case
from dafne_dante.config import Settings
from dafne_dante.durable import read_bounded
from dafne_dante.errors import (
    DeltaError,
    ModelError,
    ServerAnswerError,
)
from dafne_dante.federation.beginning import begin
from dafne_dante.federation.client import PendingUpload
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.intake import Admitted, Intake
from dafne_dante.federation.known_versions import KnownVersions
from dafne_dante.federation.leaving_out import select_updates
from dafne_dante.federation.ledger import Entry, Ledger, Publication
from dafne_dante.federation.merge import Contribution, MergeOutcome, choose_step
from dafne_dante.federation.merge_report import MergeReport, Refusal
from dafne_dante.federation.operator_turn import operator_scratch, operator_turn
from dafne_dante.federation.publishing import Statement, utc_now
from dafne_dante.federation.received import Received
from dafne_dante.federation.validation_cases import usable_cases
from dafne_dante.federation.weighted_median import rule_of
from dafne_dante.federation.withdrawal import MAX_SEALED_BYTES
from dafne_dante.federation.withdrawn import after_withdrawal, withdrawal_in_words
from dafne_dante.models.build import build_network, canonical_weights, tie_aliases
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device
from dafne_dante.types import Weights

__all__ = ["MergeOptions", "MergeReport", "Refusal", "merge_pending"]

_MAX_UPLOAD_BYTES = 2 * 1024**3


def _never() -> bool:
    return False


@dataclass(frozen=True)
class MergeOptions:
    """What an operator decides for a merge.

    Attributes:
        statement: for the model card.
        take_full_models: whether models of stock clients, which nobody signed, are merged; else they are quarantined.
        is_stopping: asked between two steps of the work; once true, the merge ends with KeyboardInterrupt, and the
            next one does what is left.
    """

    statement: Statement = field(default_factory=Statement)
    take_full_models: bool = True
    is_stopping: Callable[[], bool] = _never


def merge_pending(
    depot: Depot,
    model_type: str,
    validation: Sequence[Case],
    settings: Settings,
    options: MergeOptions | None = None,
) -> MergeReport:
    """Merge everything that waits for one model type, once.

    `validation` are the operator's own labelled cases, with the model's labels in any order; the merger's folder lies
    in the settings' folder.

    Raises:
        TransportError, StorageError: what was not settled yet stays in the queue. StorageError also when another
            operator is at work.
        ServerAnswerError: the type has no version yet.
        UntrustedVersionError: a version is not what this operator published; nothing was refused for it.
        SettingsError: a malformed type's name.
        IncompatibleModelError: the operator's cases have other labels than the model.
        NotEnoughCasesError: no case of the operator shows a label.
        KeyboardInterrupt: asked to stop; nothing is lost.
    """
    with operator_turn(settings.folder, model_type), operator_scratch(settings.folder, model_type) as scratch:
        return _Merge(depot, model_type, validation, settings, options=options or MergeOptions(), scratch=scratch).run()


class _Merge:
    """One run; the ledger is replaced on disk before every step that cannot be taken back."""

    def __init__(
        self,
        depot: Depot,
        model_type: str,
        validation: Sequence[Case],
        settings: Settings,
        *,
        options: MergeOptions,
        scratch: Path,
    ) -> None:
        self._depot, self._settings, self._options, self._scratch = depot, settings, options, scratch
        self._type = model_type
        self._versions = KnownVersions(depot, scratch)
        self._current = self._versions.current
        self._validation = usable_cases(validation, self._current.plan.labels)
        self._canonical = canonical_weights(self._current.plan, self._current.weights)
        begun = begin(depot, model_type, settings, self._versions)
        self._store, self._publisher, self._ledger = begun.store, begun.publisher, begun.ledger
        self._intake = Intake(self._versions, settings, scratch, take_full_models=options.take_full_models)
        self._dice_before: Mapping[str, float | None] | None = None
        self._held: Mapping[str, Entry] = {}
        self._reread: dict[str, Contribution] = {}
        self._refusals: list[Refusal] = []
        self._skipped: list[Refusal] = []
        self._withdrawn: list[Refusal] = []

    def run(self) -> MergeReport:
        """Admit, merge, publish."""
        self._publisher.write_cards(self._ledger, self._current)
        self._take_withdrawals()
        self._held = self._ledger.held_by(self._versions.newest)
        admitted = {one.update_id: one for one in self._admit_all()}
        if not admitted:
            reason = "no update could be taken" if self._refusals or self._skipped else MergeReport.reason
            return self._report(reason=reason)
        selection = select_updates(list(admitted), lambda ids: self._try([admitted[one] for one in ids]))
        for update_id, reason in selection.culprits.items():
            self._refuse_admitted(admitted[update_id], reason)
        for update_id, reason in selection.postponed.items():
            self._skipped.append(Refusal(admitted[update_id].upload, reason))
        if selection.outcome.step > 0 and selection.kept:
            return self._publish([admitted[one] for one in selection.kept], selection.outcome)
        return self._report(selection.outcome)

    def _take_withdrawals(self) -> None:
        """Note what the sites withdraw, before anything is merged."""
        for upload in self._depot.pending():
            received = self._fetch(upload) if upload.size <= MAX_SEALED_BYTES else None
            if received is not None:
                if self._intake.is_withdrawal(received.content):
                    self._take_withdrawal(received)
                received.path.unlink(missing_ok=True)

    def _take_withdrawal(self, received: Received) -> None:
        try:
            withdrawal = self._intake.withdrawal_in(received.content, self._type)
            ledger = after_withdrawal(self._ledger, withdrawal)
        except DeltaError as error:
            self._refuse(received, str(error))
            return
        self._save(ledger)
        self._drop(received)
        told = withdrawal_in_words(ledger, withdrawal.update_id)
        self._withdrawn.append(Refusal(received.upload.filename, told))

    def _admit_all(self) -> Iterator[Admitted]:
        """Admit or quarantine each upload, oldest first; one that a crash left in the queue only leaves it."""
        seen = set(self._ledger.updates)
        done = {(entry.upload, entry.content_sha256) for entry in self._ledger.updates.values()}
        for upload in self._depot.pending():
            self._pause()
            received = self._fetch(upload)
            if received is None:
                continue
            if (upload.filename, received.sha256) in done:
                self._drop(received)
                continue
            try:
                opened = self._intake.open(received)
                if self._ledger.is_withdrawn(*opened.name):
                    self._drop(received)
                    continue
                one = self._intake.admit(opened, seen)
            except (DeltaError, ModelError) as error:
                self._refuse(received, str(error))
            else:
                seen.add(one.update_id)
                yield one

    def _fetch(self, upload: PendingUpload) -> Received | None:
        """The upload in the scratch; None, with a note in the report, when it cannot be had or is too long."""
        reason = upload.fault or f"expected at most {_MAX_UPLOAD_BYTES} bytes, found {upload.size}; remove it by hand"
        if not upload.fault and upload.size <= _MAX_UPLOAD_BYTES:
            try:
                path = self._depot.fetch_upload(upload.filename, self._scratch / f"{uuid4()}.upload")
                content = read_bounded(path, max_bytes=_MAX_UPLOAD_BYTES)
                if len(content) == upload.size:
                    return Received(upload, path, content)
                path.unlink(missing_ok=True)
                # A proxy's page, or half of a file: to refuse it would take a good update off the queue.
                reason = f"expected {upload.size} bytes, as listed, found {len(content)}; it is asked for again"
            except ServerAnswerError as error:  # gone meanwhile, or longer than it said
                reason = str(error)
        if (refusal := Refusal(upload.filename, reason)) not in self._skipped:
            self._skipped.append(refusal)
        return None

    def _try(self, admitted: Sequence[Admitted]) -> MergeOutcome:
        """The longest step that the operator's cases allow; 0 when the updates cannot be added up at all."""
        contributions = [*self._contributions(admitted)]
        try:
            return choose_step(
                self._canonical,
                contributions,
                self._evaluate,
                self._settings.dice_margin,
                rule_of(self._settings.merge_rule),
            )
        except DeltaError as error:
            return MergeOutcome(0.0, self._canonical, {}, {}, str(error), ())

    def _contributions(self, admitted: Sequence[Admitted]) -> Iterator[Contribution]:
        """The new updates, and those of the same bases that moved the current model."""
        yield from (one.contribution for one in admitted)
        groups = {one.contribution.base_sha256 for one in admitted}
        for update_id, entry in self._held.items():
            if entry.base_sha256 in groups:
                if update_id not in self._reread:
                    content = self._store.archived(update_id)
                    self._reread[update_id] = self._intake.archived(update_id, entry, content)
                yield self._reread[update_id]

    def _evaluate(self, weights: Weights) -> Mapping[str, float | None]:
        """Dice of weights on the operator's cases; of the current ones only once."""
        if weights is self._canonical and self._dice_before is not None:
            return self._dice_before
        self._pause()
        plan = self._current.plan
        network = build_network(plan, tie_aliases(plan, weights)).to(choose_device())
        dice = evaluate_cases(network, plan, self._validation)
        if weights is self._canonical:
            self._dice_before = dice
        return dice

    def _publish(self, admitted: Sequence[Admitted], outcome: MergeOutcome) -> MergeReport:
        self._pause()
        for one in admitted:
            self._store.archive(one.update_id, read_bounded(one.content, max_bytes=_MAX_UPLOAD_BYTES))
        self._ledger, version = self._publisher.publish(
            replace(self._current, weights=tie_aliases(self._current.plan, outcome.weights)),
            self._ledger,
            self._publication(outcome),
            updates={one.update_id: one.entry for one in admitted},
            scratch=self._scratch,
            current=self._current,
        )
        for one in admitted:
            self._depot.remove_upload(one.upload)
        self._publisher.write_cards(self._ledger, self._current)
        return self._report(outcome, merged=len(admitted), version=version)

    def _publication(self, outcome: MergeOutcome) -> Publication:
        statement = self._options.statement.after(self._ledger)
        return Publication(
            kind="merge",
            created=utc_now(),
            previous=self._versions.newest,
            step=outcome.step,
            dice_before=dict(outcome.dice_before),
            dice_after=dict(outcome.dice_after),
            validation_cases=len(self._validation),
            intended_use=statement.intended_use,
            licence=statement.licence,
        )

    def _report(
        self, outcome: MergeOutcome | None = None, *, reason: str = "", merged: int = 0, version: str | None = None
    ) -> MergeReport:
        return MergeReport(
            merged=merged,
            quarantined=tuple(self._refusals),
            skipped=tuple(self._skipped),
            withdrawn=tuple(self._withdrawn),
            step=outcome.step if outcome else 0.0,
            version=version,
            dice_before=outcome.dice_before if outcome else {},
            dice_after=outcome.dice_after if outcome else {},
            reason=outcome.reason if outcome else reason,
        )

    def _refuse_admitted(self, one: Admitted, reason: str) -> None:
        """Quarantine an update that was well-formed; its id is not taken again."""
        self._store.quarantine(one.upload, read_bounded(one.content, max_bytes=_MAX_UPLOAD_BYTES), reason)
        self._save(self._ledger.refused(one.update_id, one.entry, reason))
        self._take_off(one.upload, reason)

    def _refuse(self, received: Received, reason: str) -> None:
        self._store.quarantine(received.upload.filename, received.content, reason)
        self._take_off(received.upload.filename, reason)
        received.path.unlink(missing_ok=True)

    def _drop(self, received: Received) -> None:
        """What is done with, whether published, refused or withdrawn, leaves the queue and nothing more."""
        self._depot.remove_upload(received.upload.filename)
        received.path.unlink(missing_ok=True)

    def _take_off(self, upload: str, reason: str) -> None:
        self._depot.remove_upload(upload)
        self._refusals.append(Refusal(upload, reason))

    def _pause(self) -> None:
        """A place at which the work may end: nothing is half done that the next run would not finish or drop."""
        if self._options.is_stopping():
            raise KeyboardInterrupt

    def _save(self, ledger: Ledger) -> None:
        self._store.save(ledger)
        self._ledger = ledger
