"""What became of every update of one model type, on the operator's disk.

Terms: entry, publication and ancestor as in `ledger_entries`. A *folder* holds `ledger.json`, `archive/` (updates that
were published), `quarantine/` (uploads that were refused, each with its reason) and `cards/` (a model card for each
version). An *intent* is written before a publish: the digest of the weights to be published, what is to be said of
them and the updates in them; it is settled once a new version is known to have that digest.

Invariants: every file is written atomically; a refused upload is kept until the operator removes it; an update_id
that was published or refused after admission is never taken again; the ledger is bounded and read strictly.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import StorageError
from dafne_dante.federation.ledger_entries import Entry, Publication, parse_entry, parse_publication

__all__ = ["Entry", "Ledger", "Publication", "Store"]

_FILE = "ledger.json"
_MAX_BYTES = 256 * 1024**2
_MAX_UPDATE_BYTES = 2 * 1024**3
_FORMAT, _VERSION = "dafne-dante-ledger", 3
_READ_VERSIONS = (1, 2, 3)


@dataclass(frozen=True)
class Ledger:
    """The ledger's content.

    Attributes:
        updates: update_id to entry, for each that was published or refused after admission.
        versions: version to the digest of its weights, so that old versions need not be read again.
        timestamps: version to the timestamp inside its file, by which a full model of a stock client names its base.
        files: version to the SHA-256 of its file as it was published or first read; older ledgers lack some.
        publications: version to what is known of it, for those that this operator published.
        intent_sha256, intent, intent_publication, intent_file: digest of the weights about to be published, their
            updates, what is to be said of them and the SHA-256 of their file; empty when settled.
    """

    updates: Mapping[str, Entry] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    timestamps: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    publications: Mapping[str, Publication] = field(default_factory=dict)
    intent_sha256: str = ""
    intent: Mapping[str, Entry] = field(default_factory=dict)
    intent_publication: Publication | None = None
    intent_file: str = ""

    def with_intent(
        self, digest: str, updates: Mapping[str, Entry], publication: Publication | None, file_sha256: str
    ) -> "Ledger":
        """About to publish weights of this digest in a file of that one."""
        return replace(
            self,
            intent_sha256=digest,
            intent=dict(updates),
            intent_publication=publication,
            intent_file=file_sha256,
        )

    def settled(self, version: str) -> "Ledger":
        """The intent came true as `version`."""
        taken = {
            update_id: self.updates.get(update_id, entry).settled_in(version)
            for update_id, entry in self.intent.items()
        }
        told = {} if self.intent_publication is None else {version: self.intent_publication}
        file = {version: self.intent_file} if self.intent_file else {}
        settled = replace(
            self,
            updates={**self.updates, **taken},
            versions={**self.versions, version: self.intent_sha256},
            files={**self.files, **file},
            publications={**self.publications, **told},
        )
        return settled.dropped()

    def dropped(self) -> "Ledger":
        """The intent did not come true."""
        return replace(self, intent_sha256="", intent={}, intent_publication=None, intent_file="")

    def refused(self, update_id: str, entry: Entry, reason: str) -> "Ledger":
        """An update that was admitted and then refused; it is not taken again."""
        return replace(self, updates={**self.updates, update_id: replace(entry, reason=reason)})

    def held_by(self, version: str) -> dict[str, Entry]:
        """The updates that moved the weights of `version`: those first held by it or by one of its ancestors."""
        line = set(self.lineage(version))
        return {
            update_id: entry
            for update_id, entry in self.updates.items()
            if line.intersection((entry.version, *entry.again))
        }

    def is_withdrawn(self, update_id: str, public_key: str) -> bool:
        """Whether the site with this key withdrew the update."""
        entry = self.updates.get(update_id)
        return entry is not None and bool(entry.withdrawn) and entry.public_key == public_key

    def lineage(self, version: str) -> tuple[str, ...]:
        """`version` and its ancestors, newest first.

        A version that this operator did not publish is taken to start from the one before it.
        """
        known = sorted(self.versions, key=int)
        line: list[str] = []
        while version and version not in line:
            line.append(version)
            version = self._previous(version, known)
        return tuple(line)

    def _previous(self, version: str, known: list[str]) -> str:
        if publication := self.publications.get(version):
            return publication.previous
        return max((one for one in known if int(one) < int(version)), key=int, default="")


class Store:
    """The operator's folder of one model type; StorageError where the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_folder(folder)
        self._archive = make_folder(folder / "archive")
        self._quarantine = make_folder(folder / "quarantine")
        self._cards = make_folder(folder / "cards")

    def load(self) -> Ledger:
        """The ledger, empty before the first merge; StorageError when it is damaged."""
        path = self._folder / _FILE
        if not path.exists():
            return Ledger()
        try:
            return _parse(json.loads(read_bounded(path, max_bytes=_MAX_BYTES)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StorageError(f"expected {_FILE} as dafne-dante writes it; restore it from a copy") from error

    def save(self, ledger: Ledger) -> None:
        """Replace the ledger."""
        document = {"format": _FORMAT, "version": _VERSION, **asdict(ledger)}
        write_atomically(self._folder / _FILE, json.dumps(document, sort_keys=True).encode(), mode=0o600)

    def archive(self, update_id: str, content: bytes) -> None:
        """Keep the file of an update that takes part in a publish; update_id is a uuid, checked before."""
        write_atomically(self._archive / f"{update_id}.delta", content, mode=0o600)

    def archived(self, update_id: str) -> bytes:
        """A file that was archived; StorageError when it is gone, since its group would then be summed up."""
        return read_bounded(self._archive / f"{update_id}.delta", max_bytes=_MAX_UPDATE_BYTES)

    def quarantine(self, name: str, content: bytes, reason: str) -> None:
        """Keep a refused upload under its base name, with the reason beside it."""
        safe = Path(name).name
        write_atomically(self._quarantine / safe, content, mode=0o600)
        write_atomically(self._quarantine / f"{safe}.reason.txt", (reason + "\n").encode(), mode=0o600)

    def has_card(self, version: str) -> bool:
        """Whether the card of a version is written; it is what is written last of a publish."""
        return (self._cards / f"{version}.md").exists()

    def keep_card(self, version: str, as_json: str, as_markdown: str) -> None:
        """Write a version's model card; version is a text of digits."""
        write_atomically(self._cards / f"{version}.json", as_json.encode(), mode=0o600)
        write_atomically(self._cards / f"{version}.md", as_markdown.encode(), mode=0o600)


def _parse(document: Any) -> Ledger:
    if document["format"] != _FORMAT or document["version"] not in _READ_VERSIONS:
        raise ValueError("format")
    publication = document.get("intent_publication")
    return Ledger(
        updates=_entries(document["updates"]),
        versions={str(int(version)): str(digest) for version, digest in document["versions"].items()},
        timestamps={str(version): int(stamp) for version, stamp in document.get("timestamps", {}).items()},
        files={str(version): str(digest) for version, digest in document.get("files", {}).items()},
        publications={
            str(version): parse_publication(told) for version, told in document.get("publications", {}).items()
        },
        intent_sha256=str(document["intent_sha256"]),
        intent=_entries(document["intent"]),
        intent_publication=None if publication is None else parse_publication(publication),
        intent_file=str(document.get("intent_file", "")),
    )


def _entries(document: Mapping[str, Mapping[str, Any]]) -> dict[str, Entry]:
    return {str(update_id): parse_entry(entry) for update_id, entry in document.items()}
