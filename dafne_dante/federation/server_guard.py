"""What stands before the embedded server's calls: bounds on who calls how often and with how much, and the log.

Terms: the *head* of a multipart form is its first FORM_BYTES; clients send the key there, before the file.

Invariants: nothing of a body is kept or logged, and of a form whose head has no valid key no more than that is read,
for no longer than `unknown_s`; a call beyond a bound is answered (401 no key in time, 408 too slow, 413 too long, 429
too often or too many at once; 503 when the disk is full or the server stops; these with Retry-After) and its connection
closed; each call that came to an answer, or broke off, is one line.
"""

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dafne_dante.federation.rate_limit import RateLimit, address_group
from dafne_dante.federation.server_limits import ServerLimits
from dafne_dante.federation.server_log import RequestLine, RequestLog

__all__ = ["FORM_BYTES", "Guard", "Refused", "full", "too_often"]

FORM_BYTES = 1 << 20
"""What a multipart form may have beside its file."""
_UNAUTHORIZED = 401
_LOOK_AGAIN_BYTES = 16 << 20
_ONE_LEAVES_S = 5.0
_KEY_FIELD = re.compile(rb'name="?api_key"?[^\r\n]*(?:\r\n[^\r\n]+)*\r\n\r\n([^\r\n]{1,1000})\r\n--')
_CLOSED = {"Connection": "close"}
_STOPPING = {**_CLOSED, "Retry-After": "30"}


class Refused(Exception):  # noqa: N818 (an answer, not a fault)
    """An answer other than 200."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers

    def answer(self) -> JSONResponse:
        """The answer that it is."""
        return JSONResponse({"message": self.message}, status_code=self.status, headers=self.headers)


def too_often(wait_s: float) -> Refused:
    """429 for a call that may come again after `wait_s`."""
    return Refused(429, "too many calls", {"Retry-After": str(max(1, math.ceil(wait_s)))})


def full() -> Refused:
    """503 for a file that would touch the disk's reserve; what is in the queue goes first."""
    return Refused(503, "the server's disk is full", {"Retry-After": "3600"})


@dataclass
class _Exchange:
    """What is known of a call so far; `state` is what the routes note of it: user, model_type."""

    address: str
    call: str
    state: MutableMapping[str, Any]
    begin_s: float = field(default_factory=time.monotonic)
    received: int = 0
    head: bytearray = field(default_factory=bytearray)
    is_form: bool = False
    is_known: bool = False
    looked_at: int = 0
    sent: int = 0
    status: int = 0
    complete: bool = False

    def line(self) -> RequestLine:
        """Its line in the log."""
        user, model_type = (str(self.state.get(name, "")) for name in ("user", "model_type"))
        spent_ms = round(1000 * (time.monotonic() - self.begin_s), 1)
        return RequestLine(
            self.address, user, self.call, model_type, self.status, self.received, self.sent, spent_ms
        )  # fmt: skip


class Guard:
    """ASGI middleware around an app whose calls are named `calls`.

    `user_of` tells whose key it is, "" for nobody's; `has_room` whether so many bytes more fit on the disk. Both are
    slow.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: ServerLimits,
        log: RequestLog,
        calls: Collection[str],
        user_of: Callable[[str], str],
        has_room: Callable[[int], bool],
    ) -> None:
        self._app, self._limits, self._log, self._calls = app, limits, log, frozenset(calls)
        self._user_of, self._has_room = user_of, has_room
        self._addresses, self._under_way = RateLimit(limits.address), Counter[str]()
        self._max_bytes = limits.file_bytes + FORM_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on, bounded and counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = scope["path"].strip("/")
        address = address_group((scope.get("client") or ("", 0))[0])
        call = name if name in self._calls else "other"
        exchange = _Exchange(address, call, scope.setdefault("state", {}))
        exchange.is_form = dict(scope["headers"]).get(b"content-type", b"").startswith(b"multipart/")
        counting = self._counting(exchange, send)
        self._under_way[address] += 1
        try:
            refused = await self._refusal(scope, exchange)
            if refused is not None:
                refused.headers = {**_CLOSED, **(refused.headers or {})}
                await refused.answer()(scope, receive, counting)
            else:
                await self._app(scope, self._bounded(exchange, receive), counting)
        except asyncio.CancelledError:
            # The server is stopped and its patience at an end. What has not come whole was not taken: 503 says so.
            if exchange.complete or exchange.status:
                raise
            await Refused(503, "the server stops", _STOPPING).answer()(scope, receive, counting)
        finally:
            self._leave(address)
            if exchange.status == _UNAUTHORIZED:
                self._addresses.charge(address, self._limits.wrong_key_tokens)
            await asyncio.shield(asyncio.to_thread(self._log.write, exchange.line()))

    def _leave(self, address: str) -> None:
        self._under_way[address] -= 1
        if not self._under_way[address]:
            del self._under_way[address]

    async def _refusal(self, scope: Scope, exchange: _Exchange) -> Refused | None:
        wait_s = self._addresses.take(exchange.address)
        if wait_s > 0:
            return too_often(wait_s)
        if self._under_way[exchange.address] > self._limits.at_once:
            return too_often(_ONE_LEAVES_S)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced[:20]) > self._max_bytes:
            return Refused(413, "body too large")
        if exchange.is_form and not await asyncio.to_thread(self._has_room, int(announced)):
            return full()
        return None

    def _bounded(self, exchange: _Exchange, receive: Receive) -> Receive:
        async def bounded() -> Message:
            if exchange.complete:  # what is waited for now is that the caller goes
                return await receive()
            message = await self._next(exchange, receive)
            exchange.received += len(message.get("body", b""))
            exchange.complete = not message.get("more_body", False)
            if exchange.received > self._max_bytes:
                raise Refused(413, "body too large", _CLOSED)
            if exchange.is_form:
                await self._look(exchange, message.get("body", b""))
            return message

        return bounded

    async def _next(self, exchange: _Exchange, receive: Receive) -> Message:
        """The next part of the body, or 408; a form has longer once its key is found good."""
        left_s = self._left_s(exchange)
        try:
            return await asyncio.wait_for(receive(), max(0.0, left_s))
        except asyncio.TimeoutError:
            if not exchange.is_known and exchange.is_form and await self._finds_key(exchange):
                return await self._next(exchange, receive)
            raise Refused(408, "the body came too slowly", _CLOSED) from None

    def _left_s(self, exchange: _Exchange) -> float:
        spent_s, limits = time.monotonic() - exchange.begin_s, self._limits
        left_s = min(limits.idle_s, limits.idle_s + exchange.received / limits.slowest_bytes_per_s - spent_s)
        return left_s if exchange.is_known else min(left_s, limits.unknown_s - spent_s)

    async def _look(self, exchange: _Exchange, block: bytes) -> None:
        """Nothing while the form is short; 401 for one that goes on without a valid key in its head, 503 for no room.

        The announced length is believed for neither: it may be missing.
        """
        if not exchange.is_known:
            exchange.head += block[: FORM_BYTES - len(exchange.head)]
            if exchange.received > FORM_BYTES and not await self._finds_key(exchange):
                raise Refused(_UNAUTHORIZED, "invalid access code", _CLOSED)
        if exchange.received - exchange.looked_at > _LOOK_AGAIN_BYTES:
            exchange.looked_at = exchange.received
            if not await asyncio.to_thread(self._has_room, 0):
                raise full()

    async def _finds_key(self, exchange: _Exchange) -> bool:
        """Look for a valid key in the form's head; once it is found its user is noted and the head let go."""
        found = _KEY_FIELD.search(exchange.head)
        key = found.group(1).decode("utf-8", "replace") if found else ""
        user = await asyncio.to_thread(self._user_of, key) if key else ""
        if user:
            exchange.is_known, exchange.head, exchange.state["user"] = True, bytearray(), user
        return exchange.is_known

    @staticmethod
    def _counting(exchange: _Exchange, send: Send) -> Send:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            exchange.sent += len(message.get("body", b""))
            await send(message)

        return counting
