"""The models and uploads of a server, as files: `<root>/models/<type>/<version>.model`, `model.json`, `uploads/`.

Terms: a version is seconds since 1970 as text, strictly rising; an upload is `<seconds>_<user>-<random>.model`, as on
Dafne's own servers, but unguessable and never overwritten.

Invariants: names from outside are matched against an allow-list before they touch a path, so no path leaves the root;
files appear whole (written beside, then renamed); an upload keeps its bytes unchanged.
"""

import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dafne_dante.durable import digest_file, make_folder, read_bounded, write_atomically, write_stream_atomically
from dafne_dante.errors import ServerAnswerError, SettingsError, StorageError

__all__ = ["Shelf", "Upload"]

_TYPE = re.compile(r"[A-Za-z0-9() -]{1,100}")
_VERSION = re.compile(r"[0-9]{1,20}")
_UPLOAD = re.compile(r"[0-9]{1,20}_[A-Za-z0-9._-]{1,140}\.model")
_CHUNK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_MAX_JSON_BYTES = 1 << 20
_MAX_CHUNKS = 1000
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Upload:
    """A pending upload: its file name, second of arrival, user and bytes."""

    filename: str
    timestamp: str
    username: str
    size: int


class Shelf:
    """The folder `models` under a server's root; StorageError where the disk refuses."""

    def __init__(self, root: Path) -> None:
        self._models = make_folder(root / "models")
        self._lock = threading.Lock()

    @staticmethod
    def is_type_name(name: str) -> bool:
        """Letters, digits, parentheses, spaces and hyphens, as Dafne's servers allow; no underscore."""
        return bool(_TYPE.fullmatch(name)) and name.strip() == name

    def add_type(self, model_type: str, description: Mapping[str, Any]) -> None:
        """Create a type, or replace the `model.json` that its `info_model` answers; SettingsError for a bad name."""
        if not self.is_type_name(model_type):
            raise SettingsError("expected a type's name of letters, digits, spaces, hyphens and (); choose another")
        folder = make_folder(self._models / model_type)
        make_folder(folder / "uploads")
        write_atomically(folder / "model.json", (json.dumps(description, sort_keys=True, indent=1) + "\n").encode())

    def types(self) -> list[str]:
        """All types by name."""
        return sorted(path.name for path in self._models.iterdir() if path.is_dir() and self.is_type_name(path.name))

    def has_type(self, model_type: str) -> bool:
        """True for a well-formed name of a type that exists."""
        return self.is_type_name(model_type) and (self._models / model_type).is_dir()

    def description(self, model_type: str) -> dict[str, Any]:
        """The content of `model.json`, empty when there is none; ServerAnswerError when it is damaged."""
        path = self._folder(model_type) / "model.json"
        if not path.exists():
            return {}
        try:
            content = json.loads(read_bounded(path, max_bytes=_MAX_JSON_BYTES))
        except ValueError as error:
            raise ServerAnswerError("expected model.json to be JSON, found something else; correct it") from error
        return content if isinstance(content, dict) else {}

    def versions(self, model_type: str) -> list[str]:
        """All versions, oldest first."""
        stems = [path.stem for path in self._folder(model_type).glob("*.model")]
        return sorted((stem for stem in stems if _VERSION.fullmatch(stem)), key=int)

    def model_path(self, model_type: str, version: str) -> Path | None:
        """The file of one version, None when there is none of that name."""
        path = self._folder(model_type) / f"{version}.model"
        return path if _VERSION.fullmatch(version) and path.is_file() else None

    def digest(self, model_type: str, version: str) -> str:
        """SHA-256 of one version's file, kept beside it so that it is computed once."""
        path = self._folder(model_type) / f"{version}.model"
        sidecar = path.with_suffix(".model.sha256")
        if sidecar.is_file():
            return read_bounded(sidecar, max_bytes=128).decode("ascii").strip()
        digest = digest_file(path)
        write_atomically(sidecar, digest.encode())
        return digest

    def publish(self, model_type: str, source: Path) -> str:
        """Move a complete file in as the newest version and return that version, later than every other."""
        folder = self._folder(model_type)
        digest = digest_file(source)
        with self._lock:
            known = self.versions(model_type)
            version = str(max(int(time.time()), int(known[-1]) + 1 if known else 0))
            target = folder / f"{version}.model"
            write_atomically(target.with_suffix(".model.sha256"), digest.encode())
            _move(source, target)
        return version

    def publish_copy(self, model_type: str, source: Path) -> str:
        """As `publish`, for a file that stays where it is."""
        temporary = self._folder(model_type) / f"{secrets.token_hex(8)}.part"
        with source.open("rb") as stream:
            write_stream_atomically(temporary, lambda target: shutil.copyfileobj(stream, target))
        return self.publish(model_type, temporary)

    def receive(self, model_type: str, username: str, source: Path) -> Path:
        """Move a complete file in as a new upload and return its path; two in one second are both kept."""
        name = f"{int(time.time())}_{username}-{secrets.token_hex(8)}.model"
        target = make_folder(self._folder(model_type) / "uploads") / name
        _move(source, target)
        return target

    def uploads(self, model_type: str) -> list[Upload]:
        """Pending uploads, oldest first."""
        folder = self._folder(model_type) / "uploads"
        found = []
        for path in folder.glob("*.model"):
            if _UPLOAD.fullmatch(path.name) and path.is_file():
                timestamp, username = path.stem.split("_", 1)
                found.append(Upload(path.name, timestamp, username, path.stat().st_size))
        return sorted(found, key=lambda upload: (int(upload.timestamp), upload.filename))

    def upload_path(self, model_type: str, filename: str) -> Path | None:
        """The file of one upload, None when there is none of that name."""
        path = self._folder(model_type) / "uploads" / filename
        return path if _UPLOAD.fullmatch(filename) and path.is_file() else None

    def store_chunk(self, model_type: str, owner: str, name: str, index: int, stream: IO[bytes]) -> Path:
        """Keep one chunk of a file that arrives in parts; ServerAnswerError for a name or index out of bounds.

        Parts of one file lie in a folder of their own for each user, so that users cannot write into each other's.
        """
        if not _CHUNK_NAME.fullmatch(name) or not 0 <= index < _MAX_CHUNKS:
            raise ServerAnswerError("expected a plain file name and a chunk number below 1000")
        folder = make_folder(self._folder(model_type) / "chunks" / f"{owner}-{name}")
        path = folder / f"{index}.chunk"
        with path.open("wb") as target:
            while block := stream.read(_COPY_BYTES):
                target.write(block)
        return folder

    def join_chunks(self, folder: Path, count: int) -> Path | None:
        """Join chunks 0 to count - 1 into one file and drop them; None, leaving them, when one is missing."""
        parts = [folder / f"{index}.chunk" for index in range(count)]
        if not all(part.is_file() for part in parts):
            return None
        whole = folder.with_name(f"{folder.name}-{secrets.token_hex(8)}.whole")
        with whole.open("wb") as target:
            for part in parts:
                with part.open("rb") as source:
                    while block := source.read(_COPY_BYTES):
                        target.write(block)
            target.flush()
            os.fsync(target.fileno())
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        return whole

    def _folder(self, model_type: str) -> Path:
        if not self.has_type(model_type):
            raise ServerAnswerError("expected the name of a model type that exists, found another")
        return self._models / model_type


def _move(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        raise StorageError(f"cannot keep {target.name}: {error.strerror or type(error).__name__}") from error
