"""The server's log: one line of JSON for each call, below `log` in the server's root.

`requests.jsonl` has the calls of users; `anonymous.jsonl` has those without a good key, so that whoever has none cannot
turn the log over until it says nothing of the users any more.

Terms: a line says at (UTC), who (`user`, "" before a key was found good, and `address`), what (`call`, `type`), the
`status`, the bytes of both bodies, and how long it took (`ms`).

Invariants: no key, no body, no file name and no unknown path gets into a line; the log is bounded: a full file is
renamed, the oldest is deleted; a disk that refuses is told to the process's own log once and stops no call.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from dafne_dante.durable import make_folder

__all__ = ["ANONYMOUS_LOG_FILE", "LOG_FILE", "RequestLine", "RequestLog"]

LOG_FILE = "requests.jsonl"
ANONYMOUS_LOG_FILE = "anonymous.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestLine:
    """One call; `call` is a name of Dafne's API or "other", `type` a well-formed type's name or ""."""

    address: str
    user: str
    call: str
    type: str
    status: int
    received_bytes: int
    sent_bytes: int
    ms: float


class RequestLog:
    """Appends lines below `root`; StorageError when the folder cannot be made. `clock`: seconds since 1970.

    `files` older files are kept of the users' calls, `anonymous_files` of the others.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int,
        files: int,
        anonymous_files: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        folder = make_folder(root / "log")
        self._known = _LogFile(folder / LOG_FILE, max_bytes, files)
        self._anonymous = _LogFile(folder / ANONYMOUS_LOG_FILE, max_bytes, anonymous_files)
        self._clock, self._lock, self._failed = clock, threading.Lock(), False

    def write(self, line: RequestLine) -> None:
        """Append one line."""
        at = datetime.fromtimestamp(self._clock(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        content = (json.dumps({"at": at, **asdict(line)}) + "\n").encode("ascii")
        file = self._known if line.user else self._anonymous
        try:
            with self._lock:
                file.append(content)
        except OSError as error:
            if not self._failed:
                _log.error("cannot write %s: %s; calls go on without it", file.path.name, error.strerror)
            self._failed = True
        else:
            self._failed = False


@dataclass(frozen=True)
class _LogFile:
    """One log and its `files` older ones, each of about `max_bytes`."""

    path: Path
    max_bytes: int
    files: int

    def append(self, content: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, content)
            full = os.fstat(descriptor).st_size >= self.max_bytes
        finally:
            os.close(descriptor)
        if full:
            self._turn_over()

    def _turn_over(self) -> None:
        for number in range(self.files, 0, -1):
            newer = self._numbered(number - 1) if number > 1 else self.path
            if newer.exists():
                os.replace(newer, self._numbered(number))
        if self.files == 0:
            self.path.unlink()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
