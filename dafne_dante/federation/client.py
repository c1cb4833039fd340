"""A federation server as a site and an operator use it: typed answers instead of JSON.

Terms: a version is the server's timestamp, as text of decimal digits; the capability is what a type's `model.json`
says under `dafne_dante`: which delta version its operator takes, and hints about the operator's keys (the pinned key
in the settings decides, never the server's).

Invariants: every field of an answer is checked before it is used; a file from the server lands on disk only under a
name that we chose.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import platformdirs

from dafne_dante.config import Settings
from dafne_dante.delta.naming import shown
from dafne_dante.durable import digest_file
from dafne_dante.errors import ServerAnswerError, SettingsError
from dafne_dante.federation.downloads import ModelCache
from dafne_dante.federation.form import FilePart
from dafne_dante.federation.retrying import Retrying, RetryPlan
from dafne_dante.federation.route import find_route
from dafne_dante.federation.transport import HttpTransport, Progress, Transport
from dafne_dante.federation.upload_turns import UploadTurns
from dafne_dante.federation.uploading import Sender

__all__ = ["Capability", "FederationClient", "ModelInfo", "PendingUpload", "connect"]

_APPLICATION = "dafne-dante"
_CHUNK_BYTES = 50 * 1024**2
_VERSION = re.compile(r"[0-9]{1,20}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UPLOAD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._()@+ -]{0,199}")
_MAX_LISTED = 10_000


@dataclass(frozen=True)
class Capability:
    """What a type says about deltas: the version it takes, and base64 keys as hints ("" when it names none)."""

    delta: int
    operator_key: str = ""
    seal_key: str = ""


@dataclass(frozen=True)
class ModelInfo:
    """One model type: versions oldest first, SHA-256 of their files, and whether it takes deltas (None: no).

    `joins_parts`: whether the server puts the parts of an upload together. The stock FastAPI server, which does not,
    is known by the size of the newest version that it leaves out.
    """

    latest_timestamp: str
    timestamps: tuple[str, ...]
    hashes: Mapping[str, str]
    capability: Capability | None
    joins_parts: bool = True


@dataclass(frozen=True)
class PendingUpload:
    """An upload that waits: the server's name for it, the user who sent it, bytes.

    `fault` says why it cannot be asked for, "" for one that can; `filename` is then only what can be shown of it.
    """

    filename: str
    username: str
    size: int
    fault: str = ""


class FederationClient:
    """Dafne's calls over a transport; every method raises TransportError as `HttpTransport` says.

    Files go in parts of `chunk_bytes`, since servers bound the length of one request; `turn` is entered around what
    completes an upload (UploadTurns). Models that were downloaded are taken from `cache` where there is one.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        chunk_bytes: int = _CHUNK_BYTES,
        cache: ModelCache | None = None,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._transport, self._chunk_bytes, self._cache = transport, chunk_bytes, cache
        self._sender = Sender(transport, chunk_bytes, turn)

    def available_models(self) -> list[str]:
        """Names of the model types that this key may use."""
        models = self._transport.ask("get_available_models", {}).get("models")
        if not isinstance(models, list) or not all(isinstance(name, str) and name.isprintable() for name in models):
            raise ServerAnswerError("expected a list of model types, found something else")
        return models[:_MAX_LISTED]

    def model_info(self, model_type: str) -> ModelInfo:
        """Versions, digests and capability of one type; ServerAnswerError when the answer is not of that form."""
        answer = self._transport.ask("info_model", {"model_type": model_type})
        latest = _version(answer.get("latest_timestamp"))
        hashes = answer.get("hashes")
        hashes = {latest: answer.get("hash")} if hashes is None else hashes
        if not isinstance(hashes, dict) or not all(_is_digest(value) for value in hashes.values()):
            raise ServerAnswerError("expected a SHA-256 of every version, found something else")
        listed = answer.get("timestamps")
        stamps = {latest, *(_version(one) for one in listed)} if isinstance(listed, list) else {latest}
        newest = tuple(sorted(stamps, key=int)[-_MAX_LISTED:])
        digests = {_version(key): value for key, value in hashes.items()}
        return ModelInfo(latest, newest, digests, _capability(answer), "latest_size" in answer)

    def download_model(
        self, model_type: str, version: str, destination: Path, progress: Progress | None = None
    ) -> Path:
        """Write one version's `.model` file to `destination` when it has the SHA-256 of the server's list.

        `progress` is told the bytes that came and the bytes in all; nothing when the file is taken from the cache.
        """
        digest = self.model_info(model_type).hashes.get(version)
        if digest is None:
            raise ServerAnswerError(f"expected the server to list version {version}, found that it does not")
        body = {"model_type": model_type, "timestamp": version}

        def fetch(path: Path) -> Path:
            return self._transport.download("get_model", body, path, sha256=digest, progress=progress)

        return fetch(destination) if self._cache is None else self._cache.take(digest, destination, fetch)

    def upload(self, model_type: str, path: Path, dice: float, progress: Progress | None = None) -> None:
        """Send a file as an upload, in parts under a name that nobody else can have chosen.

        `progress` is told the bytes sent and the bytes in all after every part.

        Raises:
            UploadUnknownError: the answer to the last part is lost. The server may have kept the file, so sending it
                again may queue it twice, which the operator finds by its update_id.
            ServerUnreachableError: any other; the server did not keep the file.
            StorageError: the file cannot be read.
        """
        fields = {"model_type": model_type, "dice": f"{dice:.4f}", "original_hash": digest_file(path)}
        # A part that a server takes for a file would stay in its operator's queue, so it is asked before.
        joins = FilePart.whole(path).length <= self._chunk_bytes or self._joins_parts(model_type)
        self._sender.send("upload_model", fields, path, joins_parts=joins, progress=progress)

    def _joins_parts(self, model_type: str) -> bool:
        try:
            return self.model_info(model_type).joins_parts
        except ServerAnswerError as error:
            if error.status == 404:  # a type without a version yet, which the FastAPI server does not have
                return True
            raise

    def pending_uploads(self, model_type: str) -> list[PendingUpload]:
        """Uploads that wait for a merge, oldest first; needs the merge right.

        What is no well-formed upload is among them with its fault, so that one odd file does not hide the others.
        """
        uploads = self._transport.ask("get_pending_uploads", {"model_type": model_type}).get("uploads")
        if not isinstance(uploads, list):
            raise ServerAnswerError("expected a list of uploads, found something else")
        return [_pending(item) for item in uploads[:_MAX_LISTED]]

    def download_upload(self, model_type: str, filename: str, destination: Path) -> Path:
        """Write one upload to `destination`; when the server tells its SHA-256, as the known ones do, it is checked."""
        body = {"model_type": model_type, "filename": filename}
        return self._transport.download("download_upload", body, destination, sha256=None, progress=None)

    def delete_upload(self, model_type: str, filename: str) -> None:
        """Take one upload off the queue; done when it is not there any more, whoever took it off."""
        try:
            self._transport.ask("delete_upload", {"model_type": model_type, "filename": filename})
        except ServerAnswerError:
            # The answer to an earlier try may have been lost: what counts is the queue.
            if any(waiting.filename == filename for waiting in self.pending_uploads(model_type)):
                raise

    def publish_model(self, model_type: str, path: Path) -> str:
        """Make a `.model` file the newest version of its type and return that version."""
        fields = {"model_type": model_type, "sha256": digest_file(path)}
        return _version(self._sender.send("upload_merged_model", fields, path).get("timestamp"))


def connect(settings: Settings, server: str = "") -> FederationClient:
    """A client for `server`, else for the settings' server, with the settings' proxy, certificates, bounds and cache.

    Raises:
        SettingsError: an address or the key is missing, or a proxy or certificates cannot be used.
    """
    if settings.key_fault:
        raise SettingsError(settings.key_fault)
    url = server or settings.server
    transport = HttpTransport(
        url,
        settings.api_key,
        timeout_s=settings.timeout_s,
        retrying=Retrying(RetryPlan(retries=settings.retries, total_s=settings.retry_s)),
        route=find_route(url, ca_bundle=settings.ca_bundle, proxy=settings.proxy),
    )
    return FederationClient(
        transport,
        chunk_bytes=settings.chunk_mib * 1024**2,
        cache=ModelCache(
            _cache_folder(settings),
            most_files=settings.cache_models,
            most_bytes=int(settings.cache_gib * 1024**3),
        ),
        turn=UploadTurns(settings.folder, url).turn,
    )


def _cache_folder(settings: Settings) -> Path:
    """The platform's place for what can be fetched again; inside a configuration folder that somebody chose."""
    own = settings.folder == Path(platformdirs.user_config_dir(_APPLICATION))
    return (Path(platformdirs.user_cache_dir(_APPLICATION)) if own else settings.folder) / "global-models"


def _version(value: Any) -> str:
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not _VERSION.fullmatch(text):
        raise ServerAnswerError("expected a version as decimal digits, found something else")
    return text


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def _capability(answer: Mapping[str, Any]) -> Capability | None:
    """The type's word about deltas; anything malformed counts as none."""
    block = answer.get("dafne_dante")
    if not isinstance(block, dict):
        return None
    delta = block.get("delta")
    # A version may come back as a float (1.0), since servers pass JSON through; Python's reader knows NaN and Infinity.
    if isinstance(delta, bool) or not isinstance(delta, (int, float)) or not 1 <= delta <= 1000 or delta != int(delta):
        return None
    keys = [block.get(name) for name in ("operator_key", "seal_key")]
    operator_key, seal_key = (key if isinstance(key, str) and len(key) <= 64 else "" for key in keys)
    return Capability(int(delta), operator_key, seal_key)


def _pending(item: Any) -> PendingUpload:
    row = item if isinstance(item, dict) else {}
    filename, size = row.get("filename"), row.get("size")
    if not isinstance(filename, str) or not _UPLOAD_NAME.fullmatch(filename):
        fault = "expected a name of letters, digits and ._()@+ -, found another; rename or remove the file by hand"
        return PendingUpload(shown(str(filename or "without a name")), "", 0, fault)
    if not _is_size(size):
        return PendingUpload(filename, "", 0, "expected its bytes as a number, found something else; ask the server")
    username = "".join(one for one in str(item.get("username", ""))[:100] if one.isprintable())
    return PendingUpload(filename, username, size)


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
