"""Where an operator finds global models and pending uploads: a server over HTTP, or a folder on this machine.

Terms: a version is a server's timestamp text; an upload is a file that a site has sent and nobody has merged yet.
"""

import shutil
from pathlib import Path
from typing import Protocol

from dafne_dante.delta.naming import shown
from dafne_dante.durable import write_stream_atomically
from dafne_dante.errors import ServerAnswerError, SettingsError, StorageError
from dafne_dante.federation.accounts import ACCOUNTS_FILE
from dafne_dante.federation.client import FederationClient, PendingUpload
from dafne_dante.federation.shelf import Shelf

__all__ = ["Depot", "FolderDepot", "HttpDepot", "shelf_root"]

_FAULT = "expected a file named <seconds>_<user>.model, found another name; rename or remove the file by hand"


class Depot(Protocol):
    """The operator's side of one model type."""

    def versions(self) -> tuple[str, ...]:
        """All versions, oldest first."""

    def fetch_model(self, version: str, destination: Path) -> Path:
        """A copy of one version's `.model` file."""

    def pending(self) -> list[PendingUpload]:
        """Uploads that wait, oldest first; what cannot be asked for is among them with its fault."""

    def fetch_upload(self, filename: str, destination: Path) -> Path:
        """A copy of one upload."""

    def remove_upload(self, filename: str) -> None:
        """Take one upload off the queue."""

    def publish(self, model: Path) -> str:
        """Make a `.model` file the newest version and return its version."""

    def put_card(self, version: str, as_json: str, as_markdown: str) -> None:
        """Lay a version's model card beside it, where the depot has a place for it."""


class HttpDepot:
    """One type of a server that has the merge calls (Dafne's PHP server, the embedded server)."""

    def __init__(self, client: FederationClient, model_type: str) -> None:
        self._client, self._type = client, model_type

    def versions(self) -> tuple[str, ...]:
        """All versions, oldest first; none where the server knows no version of the type, or no such type."""
        try:
            return tuple(sorted(self._client.model_info(self._type).timestamps, key=int))
        except ServerAnswerError as error:
            if error.status == 404:
                return ()
            raise

    def fetch_model(self, version: str, destination: Path) -> Path:
        """A copy of one version's file, checked against the server's list."""
        return self._client.download_model(self._type, version, destination)

    def pending(self) -> list[PendingUpload]:
        """Uploads that wait, oldest first."""
        return self._client.pending_uploads(self._type)

    def fetch_upload(self, filename: str, destination: Path) -> Path:
        """A copy of one upload."""
        return self._client.download_upload(self._type, filename, destination)

    def remove_upload(self, filename: str) -> None:
        """Take one upload off the queue."""
        self._client.delete_upload(self._type, filename)

    def publish(self, model: Path) -> str:
        """Send the file as the newest version."""
        return self._client.publish_model(self._type, model)

    def put_card(self, version: str, as_json: str, as_markdown: str) -> None:
        """Nothing: Dafne's servers have no call for it, so the card stays in the operator's folder."""


class FolderDepot:
    """One type in a server's folder on this machine.

    `folder` is the embedded server's root (with `models/<type>`), or a folder that holds `<type>` itself, as the
    `db/models` of Dafne's FastAPI server, which has no calls for merging. SettingsError when neither is there.
    """

    def __init__(self, folder: Path, model_type: str) -> None:
        root = shelf_root(folder)
        if not (root / "models").is_dir():
            raise SettingsError("expected a server's folder with `models` in it, or that folder itself; check --folder")
        self._shelf, self._type = Shelf(root), model_type
        if not self._shelf.has_type(model_type):
            raise SettingsError(f"expected the type {model_type} in the folder, found none of that name; check --type")

    def versions(self) -> tuple[str, ...]:
        """All versions, oldest first."""
        return tuple(self._shelf.versions(self._type))

    def fetch_model(self, version: str, destination: Path) -> Path:
        """A copy of one version's file."""
        return _copy(self._shelf.model_path(self._type, version), destination)

    def pending(self) -> list[PendingUpload]:
        """Uploads that wait, oldest first."""
        well_formed = [PendingUpload(one.filename, one.username, one.size) for one in self._shelf.uploads(self._type)]
        return well_formed + [PendingUpload(shown(name), "", 0, _FAULT) for name in self._shelf.strays(self._type)]

    def fetch_upload(self, filename: str, destination: Path) -> Path:
        """A copy of one upload."""
        return _copy(self._shelf.upload_path(self._type, filename), destination)

    def remove_upload(self, filename: str) -> None:
        """Delete one upload."""
        path = self._shelf.upload_path(self._type, filename)
        try:
            if path is not None:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot remove {filename}: {error.strerror or type(error).__name__}") from error

    def publish(self, model: Path) -> str:
        """Copy the file in as the newest version."""
        return self._shelf.publish_copy(self._type, model)

    def put_card(self, version: str, as_json: str, as_markdown: str) -> None:
        """Write `<version>.card.json` and `<version>.card.md` beside the version."""
        self._shelf.put_card(self._type, version, as_json, as_markdown)


def shelf_root(folder: Path) -> Path:
    """The folder above `models`, whether that or `models` itself is named; a Shelf's root.

    A folder `models` that is not there yet, or in which a server keeps its accounts, is a root of its own.
    """
    is_a_root = (folder / "models").is_dir() or (folder / ACCOUNTS_FILE).exists() or not folder.is_dir()
    return folder if is_a_root or folder.name != "models" else folder.parent


def _copy(source: Path | None, destination: Path) -> Path:
    if source is None:
        raise ServerAnswerError("expected a file of that name in the folder, found none; was it merged meanwhile?")
    try:
        with source.open("rb") as stream:
            write_stream_atomically(destination, lambda target: shutil.copyfileobj(stream, target))
    except OSError as error:
        raise StorageError(f"cannot read {source.name}: {error.strerror or type(error).__name__}") from error
    return destination
