"""The embedded server: Dafne's HTTP API, with the statuses of Dafne's PHP server (DAFNE.md section 2).

Invariants: what is received is stored and served unchanged, never parsed, unpickled or run; a file is taken only when
its digest is the announced one; bodies and joined files are bounded; every call needs a key, in its body; keys are
never logged. The work of a call is a plain function that runs in a thread, so that hashing and copying never stop the
others.

Differences to Dafne's servers: a body that is too long is 413 (not 401); a mismatch to the stock client's field `hash`
is found too; uploads of one second are all kept; `upload_data` answers 403, since images stay where they were made.
A stock client prints that answer, tries twice more in its own thread, gives up and goes on.
"""

import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dafne_dante.durable import digest_file
from dafne_dante.errors import DanteError, ServerAnswerError, StorageError
from dafne_dante.federation.accounts import Account, Accounts
from dafne_dante.federation.shelf import Shelf

__all__ = ["create_app"]

_MAX_FILE_BYTES = 2 * 1024**3
_FORM_BYTES = 1 << 20
_MAX_JSON_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger(__name__)


class _Refused(Exception):  # noqa: N818 (an answer, not a fault)
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class _BodyLimit:
    """ASGI middleware: a body longer than the limit is answered 413, whether it announces its length or not."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with a counted body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._max_bytes:
            await JSONResponse({"message": "body too large"}, status_code=413)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise _Refused(413, "body too large")
            return message

        await self._app(scope, counted, send)


class _Api:
    """What the routes do, on accounts and files."""

    def __init__(self, root: Path, max_file_bytes: int) -> None:
        self.accounts, self.shelf, self._max_file_bytes = Accounts(root), Shelf(root), max_file_bytes

    def user(self, body: Mapping[str, Any]) -> Account:
        """The caller, or 401."""
        key = body.get("api_key")
        account = self.accounts.find(key) if isinstance(key, str) and key else None
        if account is None:
            self.accounts.log("", "refused", "no key, or a wrong one")
            raise _Refused(401, "invalid access code")
        return account

    def type_name(self, body: Mapping[str, Any]) -> str:
        """A well-formed type's name, or 400."""
        name = body.get("model_type")
        if not isinstance(name, str) or not self.shelf.is_type_name(name):
            raise _Refused(400, "invalid model type")
        return name

    def accessible(self, body: Mapping[str, Any]) -> tuple[Account, str]:
        """The caller and a type that they may read, or 401, 400, 403."""
        account, name = self.user(body), self.type_name(body)
        if name not in account.access:
            raise _Refused(403, "access denied for this model")
        return account, name

    def mergeable(self, body: Mapping[str, Any]) -> tuple[Account, str]:
        """The caller and a type that they may merge; as on the PHP server 400, then 401 without the right, then 404."""
        name = self.type_name(body)
        account = self.user(body)
        if name not in account.merge:
            raise _Refused(401, "invalid access code")
        if not self.shelf.has_type(name):
            raise _Refused(404, "unknown model type")
        return account, name

    def available(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """get_available_models."""
        account = self.user(body)
        return {"models": [name for name in self.shelf.types() if name in account.access]}

    def info(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """info_model, with every key of the type's model.json passed through."""
        _, name = self.accessible(body)
        versions = self.shelf.versions(name) if self.shelf.has_type(name) else []
        if not versions:
            raise _Refused(404, "no models found for this type")
        hashes = {version: self.shelf.digest(name, version) for version in versions}
        path = self.shelf.model_path(name, versions[-1])
        return {
            **self.shelf.description(name),
            "latest_timestamp": versions[-1],
            "latest_size": path.stat().st_size if path else 0,
            "hash": hashes[versions[-1]],
            "hashes": hashes,
            "timestamps": versions,
        }

    def model(self, body: Mapping[str, Any]) -> FileResponse:
        """get_model."""
        account, name = self.accessible(body)
        if not self.shelf.has_type(name):
            raise _Refused(404, "unknown model type")
        version = str(body.get("timestamp", ""))
        if not self.shelf.is_version(version):
            raise _Refused(400, "invalid timestamp")
        path = self.shelf.model_path(name, version)
        if path is None:
            raise _Refused(500, "invalid model - not found")
        self.accounts.log(account.name, "get_model", f"{name} {path.stem}")
        return _file_answer(path, self.shelf.digest(name, path.stem))

    def take_upload(self, form: Mapping[str, Any], file: UploadFile) -> dict[str, Any]:
        """upload_model: any bytes, in one piece or in chunks."""
        account, name = self.user(form), self.type_name(form)
        if not self.shelf.has_type(name):
            raise _Refused(500, "invalid model type")
        if name not in account.access:
            raise _Refused(403, "access denied for this model")
        whole = self._assemble(name, account.name, form, file)
        if whole is None:
            return {"message": "chunk received"}
        # The stock client calls it `hash`.
        announced = str(form.get("original_hash") or form.get("hash") or "")
        if announced and digest_file(whole) != announced:
            whole.unlink(missing_ok=True)
            raise _Refused(500, "Communication error during upload")
        kept = self.shelf.receive(name, account.name, whole)
        self.accounts.log(account.name, "upload_model", f"{name} {kept.name} dice {form.get('dice', '')}")
        return {"message": "upload successful"}

    def take_merged(self, form: Mapping[str, Any], file: UploadFile) -> dict[str, Any]:
        """upload_merged_model: the operator's next version."""
        account, name = self.mergeable(form)
        whole = self._assemble(name, account.name, form, file)
        if whole is None:
            return {"message": "chunk received"}
        announced = str(form.get("sha256") or "").strip().lower()
        if not _DIGEST.fullmatch(announced):
            whole.unlink(missing_ok=True)
            raise _Refused(400, "sha256 field is required (64-char hex digest)")
        if digest_file(whole) != announced:
            whole.unlink(missing_ok=True)
            raise _Refused(422, "SHA-256 checksum mismatch - upload corrupted or tampered")
        version = self.shelf.publish(name, whole)
        self.accounts.log(account.name, "upload_merged_model", f"{name} {version}")
        return {"message": "merged model uploaded successfully", "timestamp": int(version)}

    def pending(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """get_pending_uploads."""
        _, name = self.mergeable(body)
        return {"uploads": [asdict(upload) for upload in self.shelf.uploads(name)]}

    def upload(self, body: Mapping[str, Any]) -> FileResponse:
        """download_upload."""
        path = self._upload_path(body)[2]
        return _file_answer(path, digest_file(path))

    def drop_upload(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """delete_upload."""
        account, name, path = self._upload_path(body)
        path.unlink(missing_ok=True)
        self.accounts.log(account.name, "delete_upload", f"{name} {path.name}")
        return {"message": "upload deleted"}

    def note(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """log: a line from a client."""
        account = self.user(body)
        self.accounts.log(account.name, "log", str(body.get("message", "")))
        return {"message": "ok"}

    def take_data(self, form: Mapping[str, Any], file: UploadFile) -> dict[str, Any]:
        """upload_data, which is refused: see above."""
        self.user(form)
        raise _Refused(403, "this server takes no data, only models")

    def _upload_path(self, body: Mapping[str, Any]) -> tuple[Account, str, Path]:
        account, name = self.mergeable(body)
        filename = str(body.get("filename", ""))
        if not self.shelf.is_upload_name(filename):
            raise _Refused(400, "invalid filename")
        path = self.shelf.upload_path(name, filename)
        if path is None:
            raise _Refused(404, "upload not found")
        return account, name, path

    def _assemble(self, name: str, owner: str, form: Mapping[str, Any], file: UploadFile) -> Path | None:
        """The whole file, None while chunks are missing; in the type's own folder, so that a rename can keep it."""
        try:
            index, total = int(form.get("chunk_index") or 0), int(form.get("total_chunks") or 1)
        except ValueError:
            raise _Refused(400, "malformed chunk numbers") from None
        if not 0 <= index < total:
            raise _Refused(400, "chunk number out of bounds")
        chunk_name = str(form.get("filename") or "model") if total > 1 else secrets.token_hex(16)
        try:
            folder = self.shelf.store_chunk(name, owner, chunk_name, index, file.file)
        except ServerAnswerError as error:
            raise _Refused(400, str(error)) from None
        if self.shelf.chunk_bytes(folder) > self._max_file_bytes:
            self.shelf.drop_chunks(folder)
            raise _Refused(413, "file too large")
        if index < total - 1:
            return None
        whole = self.shelf.join_chunks(folder, total)
        if whole is None:
            raise _Refused(500, "missing chunk")
        return whole


def _file_answer(path: Path, digest: str) -> FileResponse:
    return FileResponse(path, media_type="application/octet-stream", headers={"X-SHA256-Checksum": digest})


def create_app(root: Path, *, max_file_bytes: int = _MAX_FILE_BYTES) -> FastAPI:
    """The application that serves the models under `root` and takes files of at most `max_file_bytes`.

    Raises:
        StorageError: the folder cannot be used.
    """
    api = _Api(root, max_file_bytes)
    app = FastAPI(title="dafne-dante", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_BodyLimit, max_bytes=max_file_bytes + _FORM_BYTES)

    @app.exception_handler(_Refused)
    async def refuse(request: Request, refused: _Refused) -> JSONResponse:
        return JSONResponse({"message": refused.message}, status_code=refused.status)

    @app.exception_handler(DanteError)
    async def fail(request: Request, error: DanteError) -> JSONResponse:
        # For the operator's log; the caller need not know how the server's disk is.
        await run_in_threadpool(_note_failure, api.accounts, request.url.path, error)
        return JSONResponse({"message": "the server failed; its log says why"}, status_code=500)

    json_calls: dict[str, Callable[[Mapping[str, Any]], dict[str, Any] | Response]] = {
        "get_available_models": api.available,
        "info_model": api.info,
        "get_model": api.model,
        "get_pending_uploads": api.pending,
        "download_upload": api.upload,
        "delete_upload": api.drop_upload,
        "log": api.note,
    }
    for call, answer in json_calls.items():
        app.add_api_route(f"/{call}", _json_route(answer), methods=["POST"], response_model=None)
    for call, take in {
        "upload_model": api.take_upload,
        "upload_merged_model": api.take_merged,
        "upload_data": api.take_data,
    }.items():
        app.add_api_route(f"/{call}", _file_route(take), methods=["POST"], response_model=None)

    # Stock clients ask once by GET, without a key, to learn where they are redirected, and read the address only.
    @app.get("/get_available_models")
    async def whereabouts() -> None:
        raise _Refused(401, "invalid access code")

    return app


def _note_failure(accounts: Accounts, call: str, error: DanteError) -> None:
    _log.error("%s failed: %s", call, error)
    # When it is the disk that fails, the line above is all there is.
    with suppress(StorageError):
        accounts.log("", call.strip("/"), str(error))


def _json_route(
    answer: Callable[[Mapping[str, Any]], dict[str, Any] | Response],
) -> Callable[[Request], Awaitable[dict[str, Any] | Response]]:
    """A route for a JSON body; the work itself runs in a thread."""

    async def route(request: Request) -> dict[str, Any] | Response:
        return await run_in_threadpool(answer, await _json_body(request))

    return route


def _file_route(
    take: Callable[[Mapping[str, Any], UploadFile], dict[str, Any]],
) -> Callable[[Request], Awaitable[dict[str, Any]]]:
    """A route for a multipart form with a file; the form is spooled to disk, the work runs in a thread."""

    async def route(request: Request) -> dict[str, Any]:
        try:
            form = await request.form(max_files=1, max_fields=32, max_part_size=64 * 1024)
        except HTTPException:
            raise _Refused(400, "malformed form") from None
        try:
            file = form.get("model_binary") or form.get("data_binary")
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            if not isinstance(file, UploadFile):
                raise _Refused(400, "file upload error")
            return await run_in_threadpool(take, fields, file)
        finally:
            await form.close()

    return route


async def _json_body(request: Request) -> dict[str, Any]:
    """The JSON object of a small body; as on the PHP server anything else counts as an empty one."""
    content = bytearray()
    async for block in request.stream():
        content += block
        if len(content) > _MAX_JSON_BYTES:
            raise _Refused(413, "body too large")
    try:
        document = json.loads(bytes(content))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
