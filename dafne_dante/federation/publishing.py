"""How a version comes to be: the intent first, then the publish, then what is said of it.

Terms: ledger, intent and publication as in `ledger`; a *statement* is what the operator says of a model for its card.

Invariants: the ledger is replaced on disk before and after the publish, so that a crash between them is settled by the
digest of the published weights; a card that a crash left out is written by the next run; the timestamp inside a file
is later than its predecessor's, since stock clients name their base by it. A release is signed by the operator's key
where there is one, with a number above every earlier one.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dafne_dante.config import Settings
from dafne_dante.delta.signing import SIGNING_KEY_FILE, load_signing_key, public_key_text
from dafne_dante.durable import digest_file
from dafne_dante.errors import ModelError, SettingsError, TrustError
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.ledger import Entry, Ledger, Publication, Store
from dafne_dante.federation.model_card import card_of
from dafne_dante.federation.model_signature import read_signature, sign_model, verified_release, without_signature
from dafne_dante.models.file import write_model
from dafne_dante.models.global_model import GlobalModel, digest_weights

__all__ = ["Publisher", "Statement", "release_number", "utc_now"]

_MAX_CHARACTERS = 10_000


@dataclass(frozen=True)
class Statement:
    """The operator's words for the model card; an empty text leaves what was said before.

    Raises:
        SettingsError: a text of more than 10,000 characters.
    """

    intended_use: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if max(len(self.intended_use), len(self.licence)) > _MAX_CHARACTERS:
            raise SettingsError(f"expected an intended use and a licence of at most {_MAX_CHARACTERS} characters each")

    def after(self, ledger: Ledger) -> "Statement":
        """These words, with those of the newest publication where there are none."""
        newest = max(ledger.publications, key=int, default=None)
        if newest is None:
            return self
        before = ledger.publications[newest]
        return Statement(self.intended_use or before.intended_use, self.licence or before.licence)


class Publisher:
    """Publishes versions of one type for an operator."""

    def __init__(self, depot: Depot, model_type: str, settings: Settings, store: Store) -> None:
        self._depot, self._type, self._settings, self._store = depot, model_type, settings, store

    def settle(self, ledger: Ledger, digests: Mapping[str, str]) -> Ledger:
        """Finish, or drop, what a run before this one was about to publish; `digests` are the depot's by version."""
        if not ledger.intent_sha256:
            return ledger
        # Not only the newest: somebody may have published since.
        came_true = [
            version
            for version, digest in digests.items()
            if version not in ledger.versions and digest == ledger.intent_sha256
        ]
        return ledger.settled(came_true[0]) if came_true else ledger.dropped()

    def publish(
        self,
        model: GlobalModel,
        ledger: Ledger,
        publication: Publication,
        *,
        updates: Mapping[str, Entry],
        scratch: Path,
        current: GlobalModel | None,
        rollback_to: int = 0,
    ) -> tuple[Ledger, str]:
        """Make `model` the newest version; the ledger after it, which is saved, and the version.

        Args:
            model: with the weights to publish; its timestamp and signature are replaced.
            publication: what to say of it; its number is filled in.
            updates: update_id to entry of the updates that it is the first to hold.
            current: the newest version until now, None for a type's first.
            rollback_to: number of the release whose model this is, 0 for none.
        """
        number = self._next_number(ledger, current)
        earliest = 0 if current is None else current.timestamp + 1
        stamped = replace(model, timestamp=max(int(time.time()), earliest))
        previous_sha256 = "" if current is None else digest_weights(current.weights)
        signed = self._signed(stamped, number, previous_sha256, rollback_to)
        path = scratch / "publish.model"
        write_model(signed, path)
        digest = digest_weights(model.weights)
        ledger = ledger.with_intent(digest, updates, replace(publication, number=number), digest_file(path))
        self._store.save(ledger)
        version = self._depot.publish(path)
        ledger = ledger.settled(version)
        ledger = replace(ledger, timestamps={**ledger.timestamps, version: stamped.timestamp})
        self._store.save(ledger)
        return ledger, version

    def write_cards(self, ledger: Ledger, model: GlobalModel) -> None:
        """Write the cards of the publications that have none, into the ledger's folder and beside the versions."""
        for version in ledger.publications:
            if not self._store.has_card(version):
                card = card_of(self._type, version, model, ledger)
                as_json, as_markdown = card.json_text(), card.markdown()
                self._depot.put_card(version, as_json, as_markdown)
                self._store.keep_card(version, as_json, as_markdown)

    def _has_key(self) -> bool:
        return (self._settings.folder / SIGNING_KEY_FILE).exists()

    def _next_number(self, ledger: Ledger, current: GlobalModel | None) -> int:
        """Above every release that this operator signed; 0 where nothing is signed."""
        if not self._has_key():
            return 0
        known = max((told.number for told in ledger.publications.values()), default=0)
        key = public_key_text(load_signing_key(self._settings.folder))
        return 1 + max(known, 0 if current is None else release_number(current, key))

    def _signed(self, model: GlobalModel, number: int, previous_sha256: str, rollback_to: int) -> GlobalModel:
        if number == 0:
            return without_signature(model)
        key = load_signing_key(self._settings.folder)
        return sign_model(
            model,
            key,
            model_type=self._type,
            number=number,
            previous_sha256=previous_sha256,
            rollback_to=rollback_to,
        )


def release_number(model: GlobalModel, public_key: str) -> int:
    """The number of the release that `public_key` signed, 0 for a model that it did not sign."""
    try:
        found = read_signature(model)
        if found is None or found.public_key != public_key:
            return 0
        return verified_release(found).number
    except (TrustError, ModelError):
        return 0


def utc_now() -> str:
    """UTC to the second, "2026-11-23T01:05:07Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
