"""Bounds in time where the HTTP library has none: it waits for ever for a server that sends a byte now and then.

Terms: a *watchdog* is a thread that cuts a connection when its time is up; to *cut* is to end both directions of its
socket, upon which whoever reads from it finds the end. A *watched* connection has one while it is made (the answer of a
proxy and the TLS handshake included) and while the head of an answer is read, with all its `100 Continue`.

Invariants: after a watchdog has cut, what was read counts as nothing, however whole it looks: an end in the middle of
an answer's head is taken for the end of the head by the library below.
"""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

__all__ = ["Watchdog", "WatchedAdapter", "socket_of"]

_CONNECTING_TIMES = 4.0
"""A host may have several addresses, each with its own timeout, before the proxy and TLS get theirs."""


class Watchdog:
    """Cuts what `find` finds then, unless it is left within `seconds` or the time is set anew; a context manager."""

    def __init__(self, find: Callable[[], socket.socket | None], seconds: float) -> None:
        self.has_cut = False
        self._find = find
        self._until = time.monotonic() + seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="dafne-dante-watchdog", daemon=True)

    def allow(self, seconds: float) -> None:
        """Let it take at most so long from now on."""
        self._until = time.monotonic() + seconds

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while (left_s := self._until - time.monotonic()) > 0:
            if self._over.wait(left_s):
                return
        self.has_cut = True
        connection = self._find()
        if connection is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                # Not SSLSocket's own, which takes away what the reading thread is using.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Watched(urllib3.connection.HTTPConnection):
    """What is watched of a connection; `watched_socket` is that of the answer that is being read.

    Raises:
        TimeoutError: the time was up.
    """

    watched_socket: socket.socket | None = None

    def connect(self) -> None:
        with self._in_time(_CONNECTING_TIMES * _seconds(self.timeout)):
            super().connect()

    def getresponse(self) -> Any:
        self.watched_socket = self.sock
        with self._in_time(_seconds(self.timeout)):
            return super().getresponse()

    @contextlib.contextmanager
    def _in_time(self, seconds: float) -> Iterator[None]:
        # While it connects, the socket is there only once it is open.
        with Watchdog(lambda: self.sock, seconds) as watchdog:
            try:
                yield
            except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
                if watchdog.has_cut:
                    raise TimeoutError("the server answers too slowly") from error
                raise
        if watchdog.has_cut:
            raise TimeoutError("the server answers too slowly")


class _WatchedTls(_Watched, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Watched


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


_POOLS = {"http": _Pool, "https": _TlsPool}


class WatchedAdapter(HTTPAdapter):
    """What a session sends through, so that all its connections are watched."""

    def init_poolmanager(self, *words: Any, **options: Any) -> None:
        """The pools of connections without a proxy."""
        super().init_poolmanager(*words, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *words: Any, **options: Any) -> urllib3.ProxyManager:
        """The pools of connections through one."""
        manager: urllib3.ProxyManager = super().proxy_manager_for(*words, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def socket_of(response: requests.Response) -> socket.socket | None:
    """The socket that an answer's body comes from; None when the connection was not watched, or has ended."""
    connection = response.raw.connection
    return connection.watched_socket if isinstance(connection, _Watched) else None


def _seconds(timeout: object) -> float:
    """A connection's timeout; that of the operating system's own patience where it has none."""
    return float(timeout) if isinstance(timeout, int | float) else 120.0
