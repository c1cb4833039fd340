"""What the embedded server's calls do, on accounts and files; no HTTP in here but its statuses.

Terms: a *right* is what a call needs for its type: "" for none (any user), `read`, `upload` or `merge`.

Invariants: what is received is stored and served unchanged, never parsed, unpickled or run; a file is taken only when
its digest is the announced one; joined files are bounded; every call's user is found by the key in its body, and
has the call's right, before anything is done.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from starlette.datastructures import UploadFile
from starlette.responses import FileResponse

from dafne_dante.durable import digest_file
from dafne_dante.errors import ServerAnswerError
from dafne_dante.federation.accounts import Account, Accounts
from dafne_dante.federation.rate_limit import RateLimit
from dafne_dante.federation.server_guard import Refused, full, too_often
from dafne_dante.federation.server_limits import ServerLimits
from dafne_dante.federation.server_room import Room
from dafne_dante.federation.shelf import Shelf

__all__ = ["Answer", "Api", "Caller", "FileCall", "JsonCall"]

_WHEN_MERGED = {"Retry-After": "3600"}
_DIGEST = re.compile(r"[0-9a-f]{64}")

Answer: TypeAlias = dict[str, Any] | FileResponse


@dataclass(frozen=True)
class Caller:
    """Whoever calls, and the type that they may call for; "" where the call names none."""

    name: str
    model_type: str
    readable: frozenset[str]


JsonCall: TypeAlias = Callable[[Caller, Mapping[str, Any]], Answer]
FileCall: TypeAlias = Callable[[Caller, Mapping[str, Any], UploadFile], Answer]


class Api:
    """The calls of Dafne's API on a server's folder; StorageError where the folder cannot be used."""

    def __init__(self, root: Path, limits: ServerLimits) -> None:
        self.accounts, self._shelf, self._max_file_bytes = Accounts(root), Shelf(root), limits.file_bytes
        self.room = Room(root, self._shelf, limits)
        self._users = RateLimit(limits.user)

    def type_name(self, body: Mapping[str, Any]) -> str:
        """A well-formed type's name, or 400."""
        name = body.get("model_type")
        if not isinstance(name, str) or not self._shelf.is_type_name(name):
            raise Refused(400, "invalid model type")
        return name

    def user(self, body: Mapping[str, Any]) -> Account:
        """The caller, or 401; 429 when they call too often."""
        key = body.get("api_key")
        account = self.accounts.find(key) if isinstance(key, str) and key else None
        if account is None:
            raise Refused(401, "invalid access code")
        wait_s = self._users.take(account.name)
        if wait_s > 0:
            raise too_often(wait_s)
        return account

    def permit(self, account: Account, right: str, body: Mapping[str, Any]) -> Caller:
        """The caller of a call that needs `right`; else the statuses of the PHP server, which differ by right."""
        if not right:
            return Caller(account.name, "", account.read)
        name = self.type_name(body)
        exists = self._shelf.has_type(name)
        if right == "upload" and not exists:
            raise Refused(500, "invalid model type")
        if name not in getattr(account, right):
            refused = (401, "invalid access code") if right == "merge" else (403, "access denied for this model")
            raise Refused(*refused)
        if not exists:
            raise Refused(404, "unknown model type")
        return Caller(account.name, name, account.read)

    def available(self, caller: Caller, body: Mapping[str, Any]) -> Answer:
        """get_available_models."""
        return {"models": [name for name in self._shelf.types() if name in caller.readable]}

    def info(self, caller: Caller, body: Mapping[str, Any]) -> Answer:
        """info_model, with every key of the type's model.json passed through."""
        name = caller.model_type
        versions = self._shelf.versions(name)
        if not versions:
            raise Refused(404, "no models found for this type")
        hashes = {version: self._shelf.digest(name, version) for version in versions}
        path = self._shelf.model_path(name, versions[-1])
        return {
            **self._shelf.description(name),
            "latest_timestamp": versions[-1],
            "latest_size": path.stat().st_size if path else 0,
            "hash": hashes[versions[-1]],
            "hashes": hashes,
            "timestamps": versions,
        }

    def model(self, caller: Caller, body: Mapping[str, Any]) -> Answer:
        """get_model."""
        version = str(body.get("timestamp", ""))
        if not self._shelf.is_version(version):
            raise Refused(400, "invalid timestamp")
        path = self._shelf.model_path(caller.model_type, version)
        if path is None:
            raise Refused(500, "invalid model - not found")
        self._note(caller, "get_model", path.stem)
        return _file_answer(path, self._shelf.digest(caller.model_type, path.stem))

    def take_upload(self, caller: Caller, form: Mapping[str, Any], file: UploadFile) -> Answer:
        """upload_model: any bytes, in one piece or in chunks."""
        if not self.room.takes_from(caller.name, file.size or 0):
            raise Refused(429, "too many uploads of yours wait to be merged", _WHEN_MERGED)
        whole = self._assemble(caller, form, file)
        if whole is None:
            return {"message": "chunk received"}
        # The stock client calls it `hash`.
        announced = str(form.get("original_hash") or form.get("hash") or "")
        if announced and digest_file(whole) != announced:
            whole.unlink(missing_ok=True)
            raise Refused(500, "Communication error during upload")
        kept = self._shelf.receive(caller.model_type, caller.name, whole)
        self._note(caller, "upload_model", f"{kept.name} dice {form.get('dice', '')}")
        return {"message": "upload successful"}

    def take_merged(self, caller: Caller, form: Mapping[str, Any], file: UploadFile) -> Answer:
        """upload_merged_model: the operator's next version."""
        whole = self._assemble(caller, form, file)
        if whole is None:
            return {"message": "chunk received"}
        announced = str(form.get("sha256") or "").strip().lower()
        if not _DIGEST.fullmatch(announced):
            whole.unlink(missing_ok=True)
            raise Refused(400, "sha256 field is required (64-char hex digest)")
        if digest_file(whole) != announced:
            whole.unlink(missing_ok=True)
            raise Refused(422, "SHA-256 checksum mismatch - upload corrupted or tampered")
        version = self._shelf.publish(caller.model_type, whole)
        self._note(caller, "upload_merged_model", version)
        return {"message": "merged model uploaded successfully", "timestamp": int(version)}

    def pending(self, caller: Caller, body: Mapping[str, Any]) -> Answer:
        """get_pending_uploads."""
        return {"uploads": [asdict(upload) for upload in self._shelf.uploads(caller.model_type)]}

    def upload(self, caller: Caller, body: Mapping[str, Any]) -> Answer:
        """download_upload."""
        path = self._upload_path(caller, body)
        return _file_answer(path, digest_file(path))

    def drop_upload(self, caller: Caller, body: Mapping[str, Any]) -> Answer:
        """delete_upload."""
        path = self._upload_path(caller, body)
        path.unlink(missing_ok=True)
        self._note(caller, "delete_upload", path.name)
        return {"message": "upload deleted"}

    def note(self, caller: Caller, body: Mapping[str, Any]) -> Answer:
        """log: a line from a client."""
        self.accounts.log(caller.name, "log", str(body.get("message", "")))
        return {"message": "ok"}

    def take_data(self, caller: Caller, form: Mapping[str, Any], file: UploadFile) -> Answer:
        """upload_data, which is refused: images stay where they were made."""
        raise Refused(403, "this server takes no data, only models")

    def _note(self, caller: Caller, call: str, detail: str) -> None:
        self.accounts.log(caller.name, call, f"{caller.model_type} {detail}")

    def _upload_path(self, caller: Caller, body: Mapping[str, Any]) -> Path:
        filename = str(body.get("filename", ""))
        if not self._shelf.is_upload_name(filename):
            raise Refused(400, "invalid filename")
        path = self._shelf.upload_path(caller.model_type, filename)
        if path is None:
            raise Refused(404, "upload not found")
        return path

    def _assemble(self, caller: Caller, form: Mapping[str, Any], file: UploadFile) -> Path | None:
        """The whole file, None while chunks are missing; in the type's own folder, so that a rename can keep it."""
        try:
            index, total = int(form.get("chunk_index") or 0), int(form.get("total_chunks") or 1)
        except ValueError:
            raise Refused(400, "malformed chunk numbers") from None
        if not 0 <= index < total:
            raise Refused(400, "chunk number out of bounds")
        chunk_name = str(form.get("filename") or "model") if total > 1 else secrets.token_hex(16)
        try:
            folder = self._shelf.store_chunk(caller.model_type, caller.name, chunk_name, index, file.file)
        except ServerAnswerError as error:
            raise Refused(400, str(error)) from None
        size = self._shelf.chunk_bytes(folder)
        if size > self._max_file_bytes:
            self._shelf.drop_chunks(folder)
            raise Refused(413, "file too large")
        if index < total - 1:
            return None
        if not self.room.takes(size):
            self._shelf.drop_chunks(folder)
            raise full()
        whole = self._shelf.join_chunks(folder, total)
        if whole is None:
            raise Refused(500, "missing chunk")
        return whole


def _file_answer(path: Path, digest: str) -> FileResponse:
    return FileResponse(path, media_type="application/octet-stream", headers={"X-SHA256-Checksum": digest})
