"""Uploads of this machine to one server, each in a second of its own.

The stock servers store an upload as `<unix second>_<user>.model`: of two that one user completes in the same second,
one is overwritten, and both are answered 200 (DAFNE.md section 2). No name that we choose changes that.

Invariants: between the answer to one completed upload and the begin of the next lies more than a second, over all
threads and processes that share the folder; a process that is killed lets go of the lock. Uploads of one user from two
machines cannot see each other: every machine needs a user of its own.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from dafne_dante.durable import make_folder
from dafne_dante.errors import ServerUnreachableError, StorageError

__all__ = ["UploadTurns"]

_APART_S = 1.2  # a second, and something for a server's clock that is being set


@dataclass(frozen=True)
class UploadTurns:
    """Turns to complete an upload to `server`; the files that tell are in `folder`.

    `wait_s` bounds the wait for other processes; `pause` and `clock` (seconds since 1970) are the world outside.
    """

    folder: Path
    server: str
    wait_s: float = 900.0
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the turn: entered when nobody else holds it and the last one ended more than a second ago.

        Raises:
            ServerUnreachableError: another process holds it for longer than `wait_s`.
            StorageError: the folder cannot be written.
        """
        mark = make_folder(self.folder) / f"uploads-{hashlib.sha256(self.server.encode()).hexdigest()[:16]}"
        lock = FileLock(mark.with_suffix(".lock"), timeout=self.wait_s, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise ServerUnreachableError(
                "another upload of this machine takes very long; try again later", may_have_arrived=False
            ) from None
        except OSError as error:
            raise _unusable(mark, error) from error
        try:
            self._wait(mark)
            self._note(mark)  # for whoever comes after a process that is killed now
            try:
                yield
            finally:
                self._note(mark)
        finally:
            lock.release()

    def _wait(self, mark: Path) -> None:
        try:
            ago_s = self.clock() - mark.stat().st_mtime
        except OSError:
            return  # nobody before
        # A mark from the future is one of a clock that was set back.
        if ago_s < _APART_S:
            self.pause(min(_APART_S, _APART_S - ago_s))

    def _note(self, mark: Path) -> None:
        try:
            mark.touch(mode=0o600)
            now = self.clock()
            os.utime(mark, (now, now))
        except OSError as error:
            raise _unusable(mark, error) from error


def _unusable(mark: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot use {mark.name} in the folder of settings: {error.strerror or type(error).__name__}")
