"""The embedded server as a process that runs until it is told to stop, or as a thread beside something else."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.federation.server_limits import ServerLimits

if TYPE_CHECKING:
    import uvicorn

__all__ = ["RunningServer", "serve"]

_START_S = 30.0
_MISSING = "expected the server's packages, found them missing; run: pip install 'dafne-dante[server]'"


def serve(
    root: Path,
    port: int,
    host: str = "127.0.0.1",
    *,
    limits: ServerLimits | None = None,
    on_listening: Callable[[], None] = lambda: None,
) -> None:
    """Serve `root` until SIGTERM or Ctrl-C; who is being served then has `finish_s` of the limits, nobody else enters.

    `on_listening` is called once the port is ours.

    Raises:
        SettingsError: the extra `server` is not installed, or the port is taken.
        StorageError: the folder cannot be used.
    """
    # uvicorn stops at Ctrl-C and then raises it again, for whoever started it.
    with _bound(host, port) as listener, suppress(KeyboardInterrupt):
        server = _uvicorn_server(root, limits or ServerLimits())
        on_listening()
        server.run(sockets=[listener])


class RunningServer:
    """The server in a thread on a free port of this machine, for the demo and for tests; a context manager."""

    def __init__(self, root: Path, *, limits: ServerLimits | None = None) -> None:
        self._server = _uvicorn_server(root, limits or ServerLimits())
        self._listener = _bound("127.0.0.1", 0)
        # Kept, since a closed socket does not know its port any more.
        self._port = self._listener.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name="dafne-dante-server", daemon=True
        )

    @property
    def url(self) -> str:
        """Base URL, ending with "/"; the same after the server has stopped."""
        return f"http://127.0.0.1:{self._port}/"

    def __enter__(self) -> "RunningServer":
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                self._stop()
                raise StorageError("expected the embedded server to start, found that it did not; see its log")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=_START_S)
        self._listener.close()


def _bound(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), backlog=128)
    except OSError as error:
        raise SettingsError(f"expected port {port} to be free, found it taken or refused; choose another") from error
    listener.set_inheritable(False)
    return listener


def _uvicorn_server(root: Path, limits: ServerLimits) -> "uvicorn.Server":
    # The server's packages are an extra, so that a hospital's workstation need not have them.
    try:
        import uvicorn  # noqa: PLC0415

        from dafne_dante.federation.server import create_app  # noqa: PLC0415
        from dafne_dante.federation.server_door import Door  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(_MISSING) from error
    config = uvicorn.Config(
        create_app(root, limits),
        log_level="warning",
        access_log=False,  # RequestLog writes one, without keys
        server_header=False,
        http=Door(limits).connection,  # type: ignore[arg-type]  # it asks for a class and only calls it
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=limits.finish_s,
    )
    return uvicorn.Server(config)
