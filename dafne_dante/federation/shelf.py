"""The models and uploads of a server, as files: `<root>/models/<type>/<version>.model`, `model.json`, `uploads/`.

Terms: a version is seconds since 1970 as text, strictly rising; an upload is `<seconds>_<user>-<random>.model`, as on
Dafne's own servers, but unguessable and never overwritten; chunks are the parts of a file on its way in.

Invariants: names from outside are matched against an allow-list, or hashed, before they touch a path, so no path
leaves the root; files appear whole and flushed (written beside, then renamed); an upload keeps its bytes unchanged;
every refusal of the disk is a StorageError.
"""

import hashlib
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dafne_dante.durable import (
    digest_file,
    make_folder,
    move_file,
    read_bounded,
    write_atomically,
    write_stream_atomically,
)
from dafne_dante.errors import ServerAnswerError, SettingsError, StorageError

__all__ = ["Shelf", "Upload"]

_TYPE = re.compile(r"[A-Za-z0-9() -]{1,100}")
_VERSION = re.compile(r"[0-9]{1,20}")
_UPLOAD = re.compile(r"([0-9]{1,20})_([A-Za-z0-9._@+ -]{1,140}?)(-[0-9a-f]{16})?\.model")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_JSON_BYTES = 1 << 20
_MAX_CHUNKS = 1000
_COPY_BYTES = 1 << 20
_KEEP_CHUNKS_S = 24 * 3600


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

    @staticmethod
    def is_version(name: str) -> bool:
        """Decimal digits."""
        return bool(_VERSION.fullmatch(name))

    @staticmethod
    def is_upload_name(name: str) -> bool:
        """`<seconds>_<user>.model`, with or without our random part; no character that means something in a path."""
        return bool(_UPLOAD.fullmatch(name))

    def add_type(self, model_type: str, description: Mapping[str, Any]) -> None:
        """Create a type, or replace the `model.json` that its `info_model` answers; SettingsError for a bad name."""
        if not self.is_type_name(model_type):
            raise SettingsError("expected a type's name of letters, digits, spaces, hyphens and (); choose another")
        folder = make_folder(self._models / model_type)
        make_folder(folder / "uploads")
        write_atomically(folder / "model.json", (json.dumps(description, sort_keys=True, indent=1) + "\n").encode())

    def types(self) -> list[str]:
        """All types by name."""
        with _disk("the models"):
            return sorted(path.name for path in self._models.iterdir() if self.has_type(path.name))

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
        except (ValueError, RecursionError) as error:
            raise ServerAnswerError("expected model.json to be JSON, found something else; correct it") from error
        return content if isinstance(content, dict) else {}

    def versions(self, model_type: str) -> list[str]:
        """All versions, oldest first."""
        stems = [path.stem for path in self._folder(model_type).glob("*.model")]
        return sorted((stem for stem in stems if _VERSION.fullmatch(stem)), key=int)

    def model_path(self, model_type: str, version: str) -> Path | None:
        """The file of one version, None when there is none of that name."""
        path = self._folder(model_type) / f"{version}.model"
        return path if self.is_version(version) and path.is_file() else None

    def digest(self, model_type: str, version: str) -> str:
        """SHA-256 of one version's file, kept beside it until the file changes; ServerAnswerError for no version."""
        path = self.model_path(model_type, version)
        if path is None:
            raise ServerAnswerError(f"expected a version of {model_type}, found none of that number")
        with _disk(path.name):
            return _known_digest(path) or _write_digest(path)

    def publish(self, model_type: str, source: Path) -> str:
        """Move a complete file in as the newest version and return that version, later than every other."""
        folder = self._folder(model_type)
        digest = digest_file(source)
        with self._lock:
            known = self.versions(model_type)
            version = max(int(time.time()), int(known[-1]) + 1 if known else 0)
            # The digest's file reserves the number, also against another process on this folder.
            while not _create(folder / f"{version}.model.sha256", digest):
                version += 1
            move_file(source, folder / f"{version}.model")
        return str(version)

    def publish_copy(self, model_type: str, source: Path) -> str:
        """As `publish`, for a file that stays where it is."""
        with self._copied(model_type, source) as temporary:
            return self.publish(model_type, temporary)

    def put_card(self, model_type: str, version: str, as_json: str, as_markdown: str) -> None:
        """Write a version's model card beside it; ServerAnswerError for a version that is no number."""
        if not self.is_version(version):
            raise ServerAnswerError("expected a version's number, found another text")
        folder = self._folder(model_type)
        write_atomically(folder / f"{version}.card.json", as_json.encode())
        write_atomically(folder / f"{version}.card.md", as_markdown.encode())

    def receive(self, model_type: str, username: str, source: Path) -> Path:
        """Move a complete file in as a new upload and return its path; two in one second are both kept."""
        name = f"{int(time.time())}_{username}-{secrets.token_hex(8)}.model"
        target = make_folder(self._folder(model_type) / "uploads") / name
        move_file(source, target)
        return target

    def receive_copy(self, model_type: str, username: str, source: Path) -> Path:
        """As `receive`, for a file that stays where it is."""
        with self._copied(model_type, source) as temporary:
            return self.receive(model_type, username, temporary)

    def uploads(self, model_type: str) -> list[Upload]:
        """Pending uploads, oldest first."""
        found = []
        for path in (self._folder(model_type) / "uploads").glob("*.model"):
            match = _UPLOAD.fullmatch(path.name)
            size = _size(path)
            if match and size is not None:
                found.append(Upload(path.name, match[1], match[2], size))
        return sorted(found, key=lambda upload: (int(upload.timestamp), upload.filename))

    def strays(self, model_type: str) -> list[str]:
        """Names of files among the uploads that are none by their name, sorted; hidden files do not count."""
        folder = self._folder(model_type) / "uploads"
        with _disk("the uploads"):
            names = [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
        return sorted(name for name in names if not self.is_upload_name(name) and not name.startswith("."))

    def upload_path(self, model_type: str, filename: str) -> Path | None:
        """The file of one upload, None when there is none of that name."""
        path = self._folder(model_type) / "uploads" / filename
        return path if self.is_upload_name(filename) and path.is_file() else None

    def held_by(self, username: str) -> tuple[int, int]:
        """Files and bytes of one user that wait or are on their way in: uploads and parts, of all types."""
        sizes = [one.size for kind in self.types() for one in self.uploads(kind) if one.username == username]
        part = re.compile(re.escape(username) + r"-[0-9a-f]{32}(-[0-9a-f]{16})?(\.whole)?")
        with _disk("chunks"):
            for folder in self._models.glob("*/chunks/*"):
                if part.fullmatch(folder.name):
                    sizes += [_size(path) or 0 for path in _files_in(folder)]
        return len(sizes), sum(sizes)

    def store_chunk(self, model_type: str, owner: str, name: str, index: int, stream: IO[bytes]) -> Path:
        """Keep one chunk of a file that arrives in parts and return the folder of its parts.

        The folder is named by the owner and a digest of `name`, so that users cannot write into each other's and a
        name may be anything. Parts that were left lying for a day go.

        Raises:
            ServerAnswerError: the chunk's number is out of bounds.
        """
        if not 0 <= index < _MAX_CHUNKS:
            raise ServerAnswerError("expected a chunk number below 1000")
        chunks = make_folder(self._folder(model_type) / "chunks")
        _drop_abandoned(chunks)
        digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
        folder = make_folder(chunks / f"{owner}-{digest}")
        write_stream_atomically(
            folder / f"{index}.chunk", lambda target: shutil.copyfileobj(stream, target, _COPY_BYTES)
        )
        return folder

    def chunk_bytes(self, folder: Path) -> int:
        """Bytes of all parts in a folder of `store_chunk`."""
        return sum(_size(path) or 0 for path in folder.glob("*.chunk"))

    def drop_chunks(self, folder: Path) -> None:
        """Give up the parts in a folder of `store_chunk`."""
        with _disk("chunks"):
            shutil.rmtree(folder)

    def join_chunks(self, folder: Path, count: int) -> Path | None:
        """Join chunks 0 to count - 1 into one file and drop them; None, leaving them, when one is missing."""
        if not all((folder / f"{index}.chunk").is_file() for index in range(count)):
            return None
        claimed = folder.with_name(f"{folder.name}-{secrets.token_hex(8)}")
        try:
            # Of two requests that would join the same parts, one gets the folder.
            folder.rename(claimed)
        except FileNotFoundError:
            return None
        whole = claimed.with_suffix(".whole")
        write_stream_atomically(whole, lambda target: _join(claimed, count, target))
        self.drop_chunks(claimed)
        return whole

    @contextmanager
    def _copied(self, model_type: str, source: Path) -> Iterator[Path]:
        """A copy in the type's folder, which goes unless it is moved on."""
        temporary = self._folder(model_type) / f"{secrets.token_hex(8)}.part"
        try:
            with _disk(source.name), source.open("rb") as stream:
                write_stream_atomically(temporary, lambda target: shutil.copyfileobj(stream, target))
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _folder(self, model_type: str) -> Path:
        if not self.has_type(model_type):
            raise ServerAnswerError("expected the name of a model type that exists, found another")
        return self._models / model_type


@contextmanager
def _disk(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot use {name}: {error.strerror or type(error).__name__}") from error


def _join(folder: Path, count: int, target: IO[bytes]) -> None:
    for index in range(count):
        with (folder / f"{index}.chunk").open("rb") as source:
            shutil.copyfileobj(source, target, _COPY_BYTES)


def _size(path: Path) -> int | None:
    """Bytes of a file; None when it is none, or was taken away meanwhile."""
    try:
        return path.stat().st_size if path.is_file() else None
    except FileNotFoundError:
        return None


def _files_in(path: Path) -> list[Path]:
    """What a folder of parts has; a joined file itself; nothing when it was taken away meanwhile."""
    try:
        return list(path.iterdir())
    except NotADirectoryError:
        return [path]
    except FileNotFoundError:
        return []


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _known_digest(path: Path) -> str | None:
    """The digest that is kept beside a file, None when it is missing, malformed, or older than the file."""
    sidecar = _sidecar(path)
    if not sidecar.is_file() or sidecar.stat().st_mtime_ns < path.stat().st_mtime_ns:
        return None
    text = read_bounded(sidecar, max_bytes=128).decode("ascii", "replace").strip()
    return text if _DIGEST.fullmatch(text) else None


def _write_digest(path: Path) -> str:
    digest = digest_file(path)
    write_atomically(_sidecar(path), digest.encode())
    return digest


def _create(path: Path, text: str) -> bool:
    """Write a new small file; False when there is one of that name."""
    with _disk(path.name):
        try:
            with path.open("x", encoding="ascii") as stream:
                stream.write(text)
        except FileExistsError:
            return False
    return True


def _drop_abandoned(chunks: Path) -> None:
    """Remove what was left lying in the folder of chunks for a day: uploads that were broken off."""
    oldest = time.time() - _KEEP_CHUNKS_S
    with _disk("chunks"):
        for path in chunks.iterdir():
            try:
                if path.stat().st_mtime < oldest:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            except FileNotFoundError:
                continue  # another request was quicker
