"""The versions of a type as its operator sees them: a list, one in full, a new one by hand, and a way back.

Terms: publication, entry and lineage as in `ledger_entries`; a *rollback* publishes an older version's model once more
as the newest, since stock clients take only what is newer than what they have.

Invariants: looking changes nothing and needs no lock; a rollback is published as a merge is, so a crash leaves it done
or not done; the updates that the versions between held are not held any more, are not taken again, and stay archived.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dafne_dante.config import Settings
from dafne_dante.delta.signing import SIGNING_KEY_FILE, fingerprint, load_signing_key, public_key_text, trusted_keys
from dafne_dante.errors import SettingsError
from dafne_dante.federation.beginning import begin, own_public_key
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.known_versions import KnownVersions
from dafne_dante.federation.ledger import Entry, Ledger, Publication, Store
from dafne_dante.federation.model_card import contributor_of
from dafne_dante.federation.operator_turn import operator_folder, operator_scratch, operator_turn
from dafne_dante.federation.publishing import Publisher, Statement, release_number, utc_now
from dafne_dante.federation.vouching import check_vouched
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import GlobalModel, digest_weights

__all__ = ["Contributor", "VersionFacts", "hand_in", "list_versions", "roll_back", "show_version"]


@dataclass(frozen=True)
class VersionFacts:
    """One version in a line.

    Attributes:
        version: the server's number.
        kind: "merge", "rollback", "handed in", or "unknown" for one that the ledger knows nothing of.
        created: UTC, "" when unknown.
        weights_sha256: digest of its weights, "" when no merge has read it yet.
        updates, contributors: how many updates it was the first to hold, and of how many sites.
        dice: mean on the operator's cases, None when it was not measured.
        brings_back: the version whose model a rollback published again, "" for any other.
        is_current: whether it is the newest.
    """

    version: str
    kind: str
    created: str
    weights_sha256: str
    updates: int
    contributors: int
    dice: float | None
    brings_back: str
    is_current: bool


@dataclass(frozen=True)
class Contributor:
    """Who sent one update, and which.

    `site` is the operator's name for the key, `key` its fingerprint; both "" for a full model, which nobody signed.
    `username` is the sender as the server knows it. Cases and method are the site's word.
    """

    update_id: str
    content_sha256: str
    upload: str
    site: str
    key: str
    username: str
    cases: int
    method: str
    base_sha256: str


def list_versions(depot: Depot, model_type: str, settings: Settings) -> list[VersionFacts]:
    """All versions, newest first.

    Raises:
        TransportError, StorageError: the depot or the ledger cannot be read.
        SettingsError: a malformed type's name.
    """
    ledger, versions = _ledger(settings, model_type), depot.versions()
    return [_facts(version, ledger, is_current=version == versions[-1]) for version in reversed(versions)]


def show_version(depot: Depot, model_type: str, version: str, settings: Settings) -> dict[str, Any]:
    """All about one version, as plain Python values.

    `contributions` are the updates that it was the first to hold, `held` the update_ids of all that its weights hold.
    Errors as `list_versions`, and SettingsError for a version that is not there.
    """
    ledger, versions = _ledger(settings, model_type), depot.versions()
    _check_version(version, versions)
    told = ledger.publications.get(version)
    names = trusted_keys(settings.folder)
    own = {update_id: entry for update_id, entry in ledger.updates.items() if entry.is_first_in(version)}
    return {
        **asdict(_facts(version, ledger, is_current=version == versions[-1])),
        "type": model_type,
        "release": told.number if told else 0,
        "step": told.step if told else 0.0,
        "dice_before": dict(told.dice_before) if told else {},
        "dice_after": dict(told.dice_after) if told else {},
        "validation_cases": told.validation_cases if told else 0,
        "methods": dict(Counter(entry.method for entry in own.values())),
        "lineage": list(ledger.lineage(version)),
        "contributions": [asdict(_contributor(update_id, entry, names)) for update_id, entry in sorted(own.items())],
        "held": sorted(ledger.held_by(version)),
    }


def roll_back(
    depot: Depot, model_type: str, version: str, settings: Settings, statement: Statement | None = None
) -> str:
    """Publish the model of `version` once more as the newest, and return the new version.

    Raises:
        SettingsError: no such version, or it is the newest already, or has its weights.
        UntrustedVersionError: it, or the newest, is not what this operator published.
        TransportError, StorageError, ModelError: nothing was published, or the next merge finds that it was.
            StorageError also when another operator is at work.
    """
    with operator_turn(settings.folder, model_type), operator_scratch(settings.folder, model_type) as scratch:
        _check_version(version, depot.versions())
        known = KnownVersions(depot, scratch)
        begun = begin(depot, model_type, settings, known)
        publisher, ledger, model = begun.publisher, begun.ledger, known.model(version)
        check_vouched(
            version, model, ledger, public_key=own_public_key(settings), model_type=model_type, is_newest=False
        )
        if digest_weights(model.weights) == known.digests[known.newest]:
            raise SettingsError(
                "expected an older version with other weights, found those of the newest; nothing to do"
            )
        words = (statement or Statement()).after(ledger)
        ledger, new = publisher.publish(
            model,
            ledger,
            _publication(version, ledger, words),
            updates={},
            scratch=scratch,
            current=known.current,
            rollback_to=_release(version, ledger, depot, scratch, settings),
        )
        publisher.write_cards(ledger, model)
        return new


def hand_in(
    depot: Depot, model_type: str, model: GlobalModel, settings: Settings, statement: Statement | None = None
) -> str:
    """Publish a model that was made elsewhere, a type's first or a later one, and return its version.

    What is the newest until now need not be trusted, for nothing of its weights is taken: so this is also the way out
    where the depot holds what nobody here published. Errors as `roll_back`, but for SettingsError.
    """
    with operator_turn(settings.folder, model_type), operator_scratch(settings.folder, model_type) as scratch:
        known: KnownVersions | None = None
        if depot.versions():
            known = KnownVersions(depot, scratch)
            begun = begin(depot, model_type, settings, known, builds_on_newest=False)
            store, publisher, ledger = begun.store, begun.publisher, begun.ledger
        else:
            store = Store(operator_folder(settings.folder, model_type))
            publisher, ledger = Publisher(depot, model_type, settings, store), store.load()
        words = (statement or Statement()).after(ledger)
        previous = known.newest if known else ""
        told = Publication("handed in", utc_now(), previous, intended_use=words.intended_use, licence=words.licence)
        current = known.current if known else None
        ledger, version = publisher.publish(model, ledger, told, updates={}, scratch=scratch, current=current)
        if known:  # only now, when the newest is the operator's own: so that what was there may be brought back
            ledger = known.remembered(ledger, known.versions)
            store.save(ledger)
        publisher.write_cards(ledger, model)
        return version


def _ledger(settings: Settings, model_type: str) -> Ledger:
    """The ledger, without making its folder."""
    folder = operator_folder(settings.folder, model_type)
    return Store(folder).load() if folder.is_dir() else Ledger()


def _check_version(version: str, versions: tuple[str, ...]) -> None:
    if version not in versions:
        raise SettingsError("expected a version that is listed, found another; publish list names them")


def _publication(version: str, ledger: Ledger, words: Statement) -> Publication:
    """What is said of a rollback; what was measured of the version that it brings back holds for it."""
    before = ledger.publications.get(version)
    return Publication(
        kind="rollback",
        created=utc_now(),
        previous=version,
        dice_before=dict(before.dice_before) if before else {},
        dice_after=dict(before.dice_after) if before else {},
        validation_cases=before.validation_cases if before else 0,
        intended_use=words.intended_use,
        licence=words.licence,
    )


def _release(version: str, ledger: Ledger, depot: Depot, scratch: Path, settings: Settings) -> int:
    """The number under which a version was signed, 0 for one that was not."""
    told = ledger.publications.get(version)
    if told and told.number:
        return told.number
    if not (settings.folder / SIGNING_KEY_FILE).exists():
        return 0
    key = public_key_text(load_signing_key(settings.folder))
    return release_number(read_model(depot.fetch_model(version, scratch / "old.model")), key)


def _facts(version: str, ledger: Ledger, *, is_current: bool) -> VersionFacts:
    told = ledger.publications.get(version)
    entries = [entry for entry in ledger.updates.values() if entry.is_first_in(version)]
    return VersionFacts(
        version=version,
        kind=told.kind if told else "unknown",
        created=told.created if told else "",
        weights_sha256=ledger.versions.get(version, ""),
        updates=len(entries),
        contributors=len({contributor_of(entry) for entry in entries}),
        dice=told.dice_after.get("mean") if told else None,
        brings_back=told.previous if told and told.kind == "rollback" else "",
        is_current=is_current,
    )


def _contributor(update_id: str, entry: Entry, names: dict[str, str]) -> Contributor:
    return Contributor(
        update_id=update_id,
        content_sha256=entry.content_sha256,
        upload=entry.upload,
        site=names.get(entry.public_key, ""),
        key=fingerprint(entry.public_key) if entry.public_key else "",
        username=entry.username,
        cases=entry.cases,
        method=entry.method,
        base_sha256=entry.base_sha256,
    )
