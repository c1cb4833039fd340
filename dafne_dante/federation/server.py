"""The embedded server: Dafne's HTTP API, with the statuses of Dafne's PHP server (DAFNE.md section 2).

Invariants: every call needs a key, in its body; bodies are bounded in length and time, calls in their number
(server_guard.py); the work of a call (server_api.py) runs in a thread, so that hashing and copying never stop the
others; a failure of the disk is 500 without a word of it to the caller.

Differences to Dafne's servers: a body that is too long is 413 (not 401); a mismatch to the stock client's field `hash`
is found too; uploads of one second are all kept; `upload_data` answers 403, since images stay where they were made;
whoever calls too often, or has too much waiting to be merged, gets 429; 503 says that the disk is full. A stock client
prints such an answer, tries twice more in its own thread, gives up and goes on.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from dafne_dante.errors import DanteError, StorageError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.server_api import Answer, Api, Caller, FileCall, JsonCall
from dafne_dante.federation.server_guard import Guard, Refused
from dafne_dante.federation.server_limits import ServerLimits
from dafne_dante.federation.server_log import RequestLog

__all__ = ["create_app"]

_MAX_JSON_BYTES = 1 << 20
_log = logging.getLogger(__name__)


def create_app(root: Path, limits: ServerLimits | None = None) -> FastAPI:
    """The application that serves the models under `root`.

    Raises:
        StorageError: the folder cannot be used.
    """
    limits = limits or ServerLimits()
    api = Api(root, limits)
    json_calls: dict[str, tuple[str, JsonCall]] = {
        "get_available_models": ("", api.available),
        "info_model": ("read", api.info),
        "get_model": ("read", api.model),
        "get_pending_uploads": ("merge", api.pending),
        "download_upload": ("merge", api.upload),
        "delete_upload": ("merge", api.drop_upload),
        "log": ("", api.note),
    }
    file_calls: dict[str, tuple[str, FileCall]] = {
        "upload_model": ("upload", api.take_upload),
        "upload_merged_model": ("merge", api.take_merged),
        "upload_data": ("", api.take_data),
    }
    app = FastAPI(title="dafne-dante", docs_url=None, redoc_url=None, openapi_url=None)
    log = RequestLog(
        root, max_bytes=limits.log_bytes, files=limits.log_files, anonymous_files=limits.anonymous_log_files
    )
    app.add_middleware(
        Guard,
        limits=limits,
        log=log,
        calls=[*json_calls, *file_calls],
        user_of=lambda key: account.name if (account := api.accounts.find(key)) else "",
        has_room=api.room.takes,
    )
    for name, (right, answer) in json_calls.items():
        app.add_api_route(f"/{name}", _json_route(api, right, answer), methods=["POST"], response_model=None)
    for name, (right, take) in file_calls.items():
        app.add_api_route(f"/{name}", _file_route(api, right, take), methods=["POST"], response_model=None)
    _answer_faults(app, api.accounts)

    # Stock clients ask once by GET, without a key, to learn where they are redirected, and read the address only.
    @app.get("/get_available_models")
    async def whereabouts() -> None:
        raise Refused(401, "invalid access code")

    return app


def _answer_faults(app: FastAPI, accounts: Accounts) -> None:
    @app.exception_handler(Refused)
    async def refuse(request: Request, refused: Refused) -> JSONResponse:
        return refused.answer()

    @app.exception_handler(DanteError)
    async def fail(request: Request, error: DanteError) -> JSONResponse:
        # For the operator's log; the caller need not know how the server's disk is.
        await run_in_threadpool(_note_failure, accounts, request.url.path, error)
        return JSONResponse({"message": "the server failed; its log says why"}, status_code=500)


def _note_failure(accounts: Accounts, call: str, error: DanteError) -> None:
    _log.error("%s failed: %s", call, error)
    # When it is the disk that fails, the line above is all there is.
    with suppress(StorageError):
        accounts.log("", call.strip("/"), str(error))


def _json_route(api: Api, right: str, answer: JsonCall) -> Callable[[Request], Awaitable[Answer]]:
    """A route for a JSON body; the work itself runs in a thread."""

    async def route(request: Request) -> Answer:
        body = await _json_body(request)
        caller = await _caller(request, api, right, body)
        return await run_in_threadpool(answer, caller, body)

    return route


def _file_route(api: Api, right: str, take: FileCall) -> Callable[[Request], Awaitable[Answer]]:
    """A route for a multipart form with a file; the form is spooled to disk, the work runs in a thread."""

    async def route(request: Request) -> Answer:
        try:
            form = await request.form(max_files=1, max_fields=32, max_part_size=64 * 1024)
        except HTTPException:
            raise Refused(400, "malformed form") from None
        try:
            file = form.get("model_binary") or form.get("data_binary")
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            if not isinstance(file, UploadFile):
                raise Refused(400, "file upload error")
            caller = await _caller(request, api, right, fields)
            return await run_in_threadpool(take, caller, fields, file)
        finally:
            await form.close()

    return route


async def _caller(request: Request, api: Api, right: str, body: Mapping[str, Any]) -> Caller:
    """Who calls, for the log, too; in merging a malformed type comes before a wrong key, as on the PHP server."""
    if right == "merge":
        api.type_name(body)
    account = await run_in_threadpool(api.user, body)
    request.state.user = account.name
    if right:
        request.state.model_type = api.type_name(body)
    return await run_in_threadpool(api.permit, account, right, body)


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
