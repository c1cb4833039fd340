"""The embedded server: Dafne's HTTP API, with the statuses of Dafne's PHP server (DAFNE.md section 2).

Invariants: what is received is stored and served unchanged, never parsed, unpickled or run; a file is taken only when
its digest is the announced one; bodies are bounded; every call needs a key; keys are never logged. Routes are plain
functions, which FastAPI runs in threads, so that hashing and copying never stop the others.
"""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
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
from dafne_dante.errors import ServerAnswerError
from dafne_dante.federation.accounts import Account, Accounts
from dafne_dante.federation.shelf import Shelf

__all__ = ["create_app"]

_MAX_BODY_BYTES = 2 * 1024**3 + 1024**2
_MAX_JSON_BYTES = 1 << 20


class Refused(Exception):  # noqa: N818 (an answer, not a fault)
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class BodyLimit:
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
                return {"type": "http.disconnect"}
            return message

        await self._app(scope, counted, send)


class Api:
    """What the routes do, on accounts and files."""

    def __init__(self, root: Path) -> None:
        self.accounts, self.shelf = Accounts(root), Shelf(root)

    def user(self, body: Mapping[str, Any]) -> Account:
        """The caller, or 401."""
        key = body.get("api_key")
        account = self.accounts.find(key) if isinstance(key, str) and key else None
        if account is None:
            self.accounts.log("", "refused", "a wrong key")
            raise Refused(401, "invalid access code")
        return account

    def type_name(self, body: Mapping[str, Any]) -> str:
        """A well-formed type's name, or 400."""
        name = body.get("model_type")
        if not isinstance(name, str) or not self.shelf.is_type_name(name):
            raise Refused(400, "invalid model type")
        return name

    def accessible(self, body: Mapping[str, Any]) -> tuple[Account, str]:
        """The caller and a type that they may read, or 401, 400, 403."""
        account, name = self.user(body), self.type_name(body)
        if name not in account.access:
            raise Refused(403, "access denied for this model")
        return account, name

    def mergeable(self, body: Mapping[str, Any]) -> tuple[Account, str]:
        """The caller and a type that they may merge; as on the PHP server 400, then 401 without the right, then 404."""
        name = self.type_name(body)
        account = self.user(body)
        if name not in account.merge:
            raise Refused(401, "invalid access code")
        if not self.shelf.has_type(name):
            raise Refused(404, "unknown model type")
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
            raise Refused(404, "no models found for this type")
        hashes = {version: self.shelf.digest(name, version) for version in versions}
        path = self.shelf.model_path(name, versions[-1])
        return {
            "latest_timestamp": versions[-1],
            "latest_size": path.stat().st_size if path else 0,
            "hash": hashes[versions[-1]],
            "hashes": hashes,
            "timestamps": versions,
            **self.shelf.description(name),
        }

    def model(self, body: Mapping[str, Any]) -> FileResponse:
        """get_model."""
        account, name = self.accessible(body)
        if not self.shelf.has_type(name):
            raise Refused(404, "unknown model type")
        path = self.shelf.model_path(name, str(body.get("timestamp", "")))
        if path is None:
            raise Refused(500, "invalid model - timestamp")
        self.accounts.log(account.name, "get_model", f"{name} {path.stem}")
        return FileResponse(path, headers={"X-SHA256-Checksum": self.shelf.digest(name, path.stem)})

    def take_upload(self, form: Mapping[str, Any], file: UploadFile) -> dict[str, Any]:
        """upload_model: any bytes, in one piece or in chunks."""
        account, name = self.user(form), self.type_name(form)
        if not self.shelf.has_type(name):
            raise Refused(500, "invalid model type")
        if name not in account.access:
            raise Refused(403, "access denied for this model")
        whole = self._assemble(name, account.name, form, file)
        if whole is None:
            return {"message": "chunk received"}
        announced = str(form.get("original_hash") or "")
        if announced and digest_file(whole) != announced:
            whole.unlink(missing_ok=True)
            raise Refused(500, "Communication error during upload")
        kept = self.shelf.receive(name, account.name, whole)
        self.accounts.log(account.name, "upload_model", f"{name} {kept.name} dice {form.get('dice', '')}")
        return {"message": "upload successful"}

    def take_merged(self, form: Mapping[str, Any], file: UploadFile) -> dict[str, Any]:
        """upload_merged_model: the operator's next version."""
        account, name = self.mergeable(form)
        whole = self._assemble(name, account.name, form, file)
        if whole is None:
            return {"message": "chunk received"}
        announced = str(form.get("sha256") or "").strip()
        if len(announced) != 64 or any(digit not in "0123456789abcdefABCDEF" for digit in announced):
            whole.unlink(missing_ok=True)
            raise Refused(400, "sha256 field is required (64-char hex digest)")
        if digest_file(whole) != announced:
            whole.unlink(missing_ok=True)
            raise Refused(422, "SHA-256 checksum mismatch - upload corrupted or tampered")
        version = self.shelf.publish(name, whole)
        self.accounts.log(account.name, "upload_merged_model", f"{name} {version}")
        return {"message": "merged model uploaded successfully", "timestamp": int(version)}

    def pending(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """get_pending_uploads."""
        _, name = self.mergeable(body)
        return {"uploads": [asdict(upload) for upload in self.shelf.uploads(name)]}

    def upload(self, body: Mapping[str, Any]) -> FileResponse:
        """download_upload."""
        return FileResponse(self._upload_path(body)[2])

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
        """upload_data is answered and refused: this federation takes no images (see docs/architecture.md)."""
        self.user(form)
        raise Refused(403, "this server takes no data, only models")

    def _upload_path(self, body: Mapping[str, Any]) -> tuple[Account, str, Path]:
        account, name = self.mergeable(body)
        path = self.shelf.upload_path(name, str(body.get("filename", "")))
        if path is None:
            raise Refused(404, "upload not found")
        return account, name, path

    def _assemble(self, name: str, owner: str, form: Mapping[str, Any], file: UploadFile) -> Path | None:
        """The whole file, None while chunks are missing; in the type's own folder, so that a rename can keep it."""
        try:
            index, total = int(form.get("chunk_index") or 0), int(form.get("total_chunks") or 1)
        except ValueError:
            raise Refused(400, "malformed chunk numbers") from None
        chunk_name = str(form.get("filename") or "model") if total > 1 else secrets.token_hex(16)
        try:
            folder = self.shelf.store_chunk(name, owner, chunk_name, index, file.file)
        except ServerAnswerError as error:
            raise Refused(400, str(error)) from None
        if index < total - 1:
            return None
        whole = self.shelf.join_chunks(folder, total)
        if whole is None:
            raise Refused(500, "missing chunk")
        return whole


def create_app(root: Path) -> FastAPI:
    """The application that serves the models under `root`; StorageError when the folder cannot be used."""
    api = Api(root)
    app = FastAPI(title="dafne-dante", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BodyLimit, max_bytes=_MAX_BODY_BYTES)

    @app.exception_handler(Refused)
    async def refuse(request: Request, refused: Refused) -> JSONResponse:
        return JSONResponse({"message": refused.message}, status_code=refused.status)

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
        # GET as well: stock clients ask for get_available_models by GET to learn where they are redirected.
        app.add_api_route(f"/{call}", _json_route(answer), methods=["POST", "GET"], response_model=None)
    for call, take in {
        "upload_model": api.take_upload,
        "upload_merged_model": api.take_merged,
        "upload_data": api.take_data,
    }.items():
        app.add_api_route(f"/{call}", _file_route(take), methods=["POST"], response_model=None)
    return app


def _json_route(
    answer: Callable[[Mapping[str, Any]], dict[str, Any] | Response],
) -> Callable[[Request], Awaitable[dict[str, Any] | Response]]:
    """A route for a JSON body; the work itself runs in a thread."""

    async def route(request: Request) -> dict[str, Any] | Response:
        body = await _json_body(request) if request.method == "POST" else dict(request.query_params)
        return await run_in_threadpool(answer, body)

    return route


def _file_route(
    take: Callable[[Mapping[str, Any], UploadFile], dict[str, Any]],
) -> Callable[[Request], Awaitable[dict[str, Any]]]:
    """A route for a multipart form with a file; the form is spooled to disk, the work runs in a thread."""

    async def route(request: Request) -> dict[str, Any]:
        try:
            form = await request.form(max_files=1, max_fields=32, max_part_size=64 * 1024)
        except HTTPException:
            raise Refused(400, "malformed form") from None
        try:
            file = form.get("model_binary") or form.get("data_binary")
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            if not isinstance(file, UploadFile):
                raise Refused(400, "file upload error")
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
            raise Refused(413, "body too large")
    try:
        document = json.loads(bytes(content))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
