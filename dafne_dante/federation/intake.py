"""From an upload to an update that may take part in a merge, whichever of its forms it came in.

Terms: an upload is a signed delta (`admission`), also in an envelope that is sealed to the operator (`delta.sealing`),
or a full model of a stock client (`full_models`). An *admitted* update
knows its upload, what the ledger is to say of it, and its contribution, whose numbers lie on the disk (`spilled`).

Invariants: what cannot be taken is a DeltaError or ModelError, whose message is the reason that quarantine records;
what was made from an older version must fit the newest one, too; memory is that of one update.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from dafne_dante.config import Settings
from dafne_dante.delta.decode import Delta, decode_delta
from dafne_dante.delta.difference import outline_of
from dafne_dante.delta.envelope import Envelope
from dafne_dante.delta.outline import Outline, check_outline
from dafne_dante.delta.sealing import SEAL_KEY_FILE, load_seal_key
from dafne_dante.delta.signing import trusted_keys
from dafne_dante.errors import DeltaError, DeltaFormatError, DeltaShapeError, ModelError, StorageError
from dafne_dante.federation.admission import admit_envelope
from dafne_dante.federation.contribution import Contribution, contribution_from
from dafne_dante.federation.full_models import FullModel, admit_full_model, reread_full_model, site_of
from dafne_dante.federation.known_versions import KnownVersions
from dafne_dante.federation.ledger import Entry
from dafne_dante.federation.received import Opened, Received, open_upload
from dafne_dante.federation.spilled import set_aside, spill
from dafne_dante.federation.withdrawal import Withdrawal, open_withdrawal
from dafne_dante.models.build import canonical_weights

__all__ = ["Admitted", "Intake"]

FULL_MODEL = "full model"
"""The method that the ledger notes for one."""


@dataclass(frozen=True, eq=False)
class Admitted:
    """An update that may be merged; `content` is its file, opened where it came sealed, on the disk."""

    upload: str
    content: Path
    entry: Entry
    contribution: Contribution

    @property
    def update_id(self) -> str:
        """As in its manifest, or as made for a full model."""
        return self.contribution.update_id


class Intake:
    """Admits uploads for one run of the merger.

    `take_full_models`: whether models of stock clients, which nobody signed, are taken; else they are refused.
    """

    def __init__(
        self, versions: KnownVersions, settings: Settings, scratch: Path, *, take_full_models: bool = True
    ) -> None:
        self._versions, self._scratch, self._settings = versions, scratch, settings
        self._take_full_models = take_full_models
        self._trusted = trusted_keys(settings.folder)
        has_seal_key = (settings.folder / SEAL_KEY_FILE).exists()
        self._seal_keys = (load_seal_key(settings.folder),) if has_seal_key else ()
        self._canonical = canonical_weights(versions.current.plan, versions.current.weights)

    def open(self, received: Received) -> Opened:
        """What an upload holds; DeltaError for what is neither a delta by a trusted key nor begun as a model."""
        return open_upload(received, seal_keys=self._seal_keys, trusted_keys=self._trusted)

    def admit(self, opened: Opened, seen_update_ids: Collection[str]) -> Admitted:
        """The update in an upload; DeltaError or ModelError when it may not be merged."""
        if opened.envelope is None:
            return self._admit_full_model(opened, seen_update_ids)
        return self._admit_delta(opened, opened.envelope, seen_update_ids)

    def withdrawal_in(self, content: bytes, model_type: str) -> Withdrawal:
        """The withdrawal in an upload; DeltaError for one that is not by a trusted key, or of another type."""
        return open_withdrawal(content, trusted_keys=self._trusted, model_type=model_type)

    def archived(self, update_id: str, entry: Entry, content: bytes) -> Contribution:
        """A published update as a contribution again; StorageError when its file is damaged."""
        try:
            if entry.public_key:
                delta = decode_delta(content, base=None, trusted_keys=None)
                return self._of_delta(delta, self._set_aside(content), published=True)
            model = reread_full_model(
                content, update_id=update_id, base_sha256=entry.base_sha256, versions=self._versions
            )
        except (DeltaError, ModelError) as error:
            raise StorageError("an archived update is damaged; restore the archive from a copy") from error
        return self._of_full_model(model, entry.username, published=True)

    def _admit_delta(self, opened: Opened, envelope: Envelope, seen: Collection[str]) -> Admitted:
        delta = admit_envelope(
            envelope,
            bases=self._versions,
            seen_update_ids=seen,
            model_id=self._versions.current.model_id,
            labels=self._versions.current.plan.labels,
            max_norm_ratio=self._settings.max_norm_ratio,
        )
        self._check_fit(delta.lengths)
        manifest = delta.manifest
        entry = _entry(opened.received, manifest.base_sha256)
        entry = replace(entry, public_key=delta.public_key, cases=manifest.cases, method=manifest.method)
        path = self._kept(opened)
        return Admitted(opened.received.upload.filename, path, entry, self._of_delta(delta, path))

    def _admit_full_model(self, opened: Opened, seen: Collection[str]) -> Admitted:
        upload = opened.received.upload
        if not self._take_full_models:
            raise DeltaFormatError("expected a signed delta, found a full model, which this operator does not take")
        model = admit_full_model(
            opened.content,
            versions=self._versions,
            seen_update_ids=seen,
            max_norm_ratio=self._settings.max_norm_ratio,
        )
        self._check_fit(outline_of(update) for update in model.updates)
        entry = replace(
            _entry(opened.received, model.base_sha256),
            method=FULL_MODEL,
            site=site_of(upload.username, self._trusted),
        )
        return Admitted(upload.filename, self._kept(opened), entry, self._of_full_model(model, upload.username))

    def _of_delta(self, delta: Delta, path: Path, *, published: bool = False) -> Contribution:
        age = self._versions.ages[delta.manifest.base_sha256]
        return contribution_from(delta, updates=set_aside(delta, path), age=age, published=published)

    def _of_full_model(self, model: FullModel, username: str, *, published: bool = False) -> Contribution:
        return Contribution(
            update_id=model.update_id,
            public_key=site_of(username, self._trusted),
            base_sha256=model.base_sha256,
            cases=1,
            updates=spill(model.updates, self._new_path()),
            age=self._versions.ages[model.base_sha256],
            published=published,
        )

    def _check_fit(self, outlines: Iterable[Outline]) -> None:
        # Its base was another version: it must fit this one too, and must not name a tensor by an alias.
        for outline in outlines:
            target = self._canonical.get(outline.weight)
            if target is None or not target.is_floating_point():
                raise DeltaShapeError("expected updates of the current model's weights, found one of another; retrain")
            check_outline(outline, tuple(target.shape))

    def _kept(self, opened: Opened) -> Path:
        """The file of an update: as it was fetched, or opened where that was sealed."""
        if not opened.was_sealed:
            return opened.received.path
        path = self._set_aside(opened.content)
        opened.received.path.unlink(missing_ok=True)
        return path

    def _set_aside(self, content: bytes) -> Path:
        path = self._new_path()
        try:
            path.write_bytes(content)
        except OSError as error:
            raise StorageError("cannot set an upload aside; free space where the settings lie") from error
        return path

    def _new_path(self) -> Path:
        return self._scratch / f"{uuid4()}.aside"


def _entry(received: Received, base_sha256: str) -> Entry:
    return Entry(
        base_sha256=base_sha256,
        public_key="",
        upload=received.upload.filename,
        content_sha256=received.sha256,
        username=received.upload.username,
    )
