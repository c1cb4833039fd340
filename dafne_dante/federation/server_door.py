"""Who may keep a connection to the embedded server open without calling.

Terms: a connection *waits* while no call is under way on it: from its begin until the head of a call has come whole,
and again when the call is answered.

Invariants: a connection waits for at most `head_s`; at most half of all connections wait: when one more does, the
address with most of them loses the one that has waited longest. A caller who sends a call at once is therefore served,
however many others hold connections and say nothing, or a byte now and then, also from the same address. Addresses are
those of the connections themselves; IPv6 addresses of one /64 count as one.
"""

import asyncio
import copy
from collections import Counter
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from dafne_dante.federation.rate_limit import address_group
from dafne_dante.federation.server_limits import ServerLimits

__all__ = ["Door"]


class Door:
    """Makes the connections of one server; it lives in the thread of the server's event loop."""

    def __init__(self, limits: ServerLimits) -> None:
        self._head_s, self._most = limits.head_s, max(1, limits.connections // 2)
        # In the order in which they began to wait.
        self._waiting: dict[_Connection, str] = {}

    def connection(self, config: Config, **server: Any) -> asyncio.Protocol:
        """What uvicorn calls for each connection, in the place of its own protocol's class."""
        return _Connection(self, config, server)

    def begin_to_wait(self, connection: "_Connection", address: str) -> asyncio.TimerHandle:
        """Note it, and let another go where too many wait; the timer ends its time."""
        self._waiting[connection] = address
        if len(self._waiting) > self._most:
            self._longest_of_the_many().give_up()
        return asyncio.get_running_loop().call_later(self._head_s, connection.give_up)

    def end_to_wait(self, connection: "_Connection") -> None:
        """It has a call, or is gone."""
        self._waiting.pop(connection, None)

    def _longest_of_the_many(self) -> "_Connection":
        ((crowd, _),) = Counter(self._waiting.values()).most_common(1)
        return next(connection for connection, address in self._waiting.items() if address == crowd)


class _Connection(asyncio.Protocol):
    """uvicorn's protocol for one connection, which does the work, and the door that watches it."""

    def __init__(self, door: Door, config: Config, server: dict[str, Any]) -> None:
        own = copy.copy(config)
        self._app: ASGIApp = config.loaded_app
        own.loaded_app = self._call
        self._inner: Any = AutoHTTPProtocol(config=own, **server)  # type: ignore[call-arg]
        self._door, self._address, self._calls = door, "", 0
        self._transport: asyncio.BaseTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller has connected."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._address = address_group(str(peer[0])) if isinstance(peer, tuple) and peer else ""
        self._inner.connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Bytes of a call."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """The caller has said all."""
        return bool(self._inner.eof_received())

    def pause_writing(self) -> None:
        """The caller reads too slowly."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        self._stop_waiting()
        self._inner.connection_lost(exc)

    def give_up(self) -> None:
        """Close it, since nothing came."""
        self._stop_waiting()
        if self._transport is not None:
            self._transport.close()

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._calls += 1
        self._stop_waiting()
        try:
            await self._app(scope, receive, send)
        finally:
            self._calls -= 1
            if self._calls == 0 and self._transport is not None and not self._transport.is_closing():
                self._wait()

    def _wait(self) -> None:
        self._timer = self._door.begin_to_wait(self, self._address)

    def _stop_waiting(self) -> None:
        self._door.end_to_wait(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
