"""What became of every update of one model type, on the operator's disk.

Terms: a *folder* holds `ledger.json`, `archive/` (deltas that were published) and `quarantine/` (uploads that were
refused, each with its reason). An *intent* is written before a publish: the digest of the weights to be published and
the updates in them; it is settled once the newest version is known to have that digest.

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

__all__ = ["Entry", "Ledger", "Store"]

_FILE = "ledger.json"
_MAX_BYTES = 256 * 1024**2
_MAX_DELTA_BYTES = 2 * 1024**3
_FORMAT, _VERSION = "dafne-dante-ledger", 1


@dataclass(frozen=True)
class Entry:
    """One update.

    Attributes:
        base_sha256: its base.
        public_key: the site's.
        upload, content_sha256: the file that it came in; such a file is done with, should it still be in the queue.
        version: the one that first held it, "" when it was refused.
    """

    base_sha256: str
    public_key: str
    upload: str
    content_sha256: str
    version: str = ""


@dataclass(frozen=True)
class Ledger:
    """The ledger's content.

    Attributes:
        updates: update_id to entry, for each that was published or refused after admission.
        versions: version to the digest of its weights, so that old versions need not be read again.
        intent_sha256, intent: digest of the weights about to be published, and their updates; empty when settled.
    """

    updates: Mapping[str, Entry] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    intent_sha256: str = ""
    intent: Mapping[str, Entry] = field(default_factory=dict)

    def with_intent(self, digest: str, updates: Mapping[str, Entry]) -> "Ledger":
        """About to publish weights of this digest."""
        return replace(self, intent_sha256=digest, intent=dict(updates))

    def settled(self, version: str) -> "Ledger":
        """The intent came true as `version`."""
        taken = {update_id: replace(entry, version=version) for update_id, entry in self.intent.items()}
        known = {**self.versions, version: self.intent_sha256}
        return Ledger(updates={**self.updates, **taken}, versions=known)

    def dropped(self) -> "Ledger":
        """The intent did not come true."""
        return replace(self, intent_sha256="", intent={})

    def refused(self, update_id: str, entry: Entry) -> "Ledger":
        """An update that was admitted and then refused; it is not taken again."""
        return replace(self, updates={**self.updates, update_id: entry})


class Store:
    """The operator's folder of one model type; StorageError where the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_folder(folder)
        self._archive = make_folder(folder / "archive")
        self._quarantine = make_folder(folder / "quarantine")

    def load(self) -> Ledger:
        """The ledger, empty before the first merge; StorageError when it is damaged."""
        path = self._folder / _FILE
        if not path.exists():
            return Ledger()
        try:
            return _parse(json.loads(read_bounded(path, max_bytes=_MAX_BYTES)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StorageError(f"expected {_FILE} as dafne-dante writes it; restore it from a copy") from error

    def save(self, ledger: Ledger) -> None:
        """Replace the ledger."""
        document = {"format": _FORMAT, "version": _VERSION, **asdict(ledger)}
        write_atomically(self._folder / _FILE, json.dumps(document, sort_keys=True).encode(), mode=0o600)

    def archive(self, update_id: str, content: bytes) -> None:
        """Keep a delta that takes part in a publish; update_id is a uuid, checked when the manifest was read."""
        write_atomically(self._archive / f"{update_id}.delta", content, mode=0o600)

    def archived(self, update_id: str) -> bytes:
        """A delta that was published; StorageError when it is gone, since its group would then be summed up."""
        return read_bounded(self._archive / f"{update_id}.delta", max_bytes=_MAX_DELTA_BYTES)

    def quarantine(self, name: str, content: bytes, reason: str) -> None:
        """Keep a refused upload under its base name, with the reason beside it."""
        safe = Path(name).name
        write_atomically(self._quarantine / safe, content, mode=0o600)
        write_atomically(self._quarantine / f"{safe}.reason.txt", (reason + "\n").encode(), mode=0o600)


def _parse(document: Any) -> Ledger:
    if (document["format"], document["version"]) != (_FORMAT, _VERSION):
        raise ValueError("format")
    return Ledger(
        updates=_entries(document["updates"]),
        versions={str(version): str(digest) for version, digest in document["versions"].items()},
        intent_sha256=str(document["intent_sha256"]),
        intent=_entries(document["intent"]),
    )


def _entries(document: Mapping[str, Mapping[str, str]]) -> dict[str, Entry]:
    return {
        str(update_id): Entry(**{key: str(value) for key, value in entry.items()})
        for update_id, entry in document.items()
    }
