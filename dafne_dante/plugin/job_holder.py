"""Which process holds a job, so that another one can tell whether it still lives.

Terms: a holder is the text `HOST PID START TOKEN`: the machine's name as a digest, the process's number, when it began
in milliseconds since 1970, and 16 random hexadecimal digits of this one claim.

Invariants: a number that the system gave to another process is never taken for the holder; on another machine nothing
is known of a process, so only silence tells that it is gone.
"""

import hashlib
import os
import platform
import secrets
from typing import Protocol

import psutil

__all__ = ["Census", "SystemCensus", "end_holder", "own_holder"]

_FOREIGN_SILENCE_S = 3600.0
_START_TOLERANCE_MS = 1500


class Census(Protocol):
    """Who lives; a seam for tests."""

    def is_gone(self, holder: str, silent_s: float) -> bool:
        """Whether this holder, of whom nothing was heard for so many seconds, can never write again."""
        ...


class SystemCensus:
    """The operating system's own list of processes."""

    def is_gone(self, holder: str, silent_s: float) -> bool:
        """As `Census`."""
        parts = _parts(holder)
        if parts is None:
            return True
        host, pid, start_ms = parts
        if host != _host():
            return silent_s > _FOREIGN_SILENCE_S
        return _process(pid, start_ms) is None


def own_holder() -> str:
    """This process as the holder of a new claim."""
    pid = os.getpid()
    return f"{_host()} {pid} {_start_ms(psutil.Process(pid))} {secrets.token_hex(8)}"


def end_holder(holder: str, *, wait_s: float = 3.0) -> bool:
    """End the process of a holder on this machine, if it lives; True when it is gone then."""
    parts = _parts(holder)
    if parts is None or parts[0] != _host() or parts[1] == os.getpid():
        return False
    process = _process(parts[1], parts[2])
    if process is None:
        return True
    try:
        process.terminate()
        _, alive = psutil.wait_procs([process], timeout=wait_s)
        for one in alive:
            one.kill()
        _, alive = psutil.wait_procs(alive, timeout=wait_s)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
    return not alive


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def _start_ms(process: psutil.Process) -> int:
    return round(process.create_time() * 1000)


def _parts(holder: str) -> tuple[str, int, int] | None:
    words = holder.split(" ")
    if len(words) != 4 or not all(word.isascii() and word.isdigit() and len(word) < 18 for word in words[1:3]):
        return None
    return words[0], int(words[1]), int(words[2])


def _process(pid: int, start_ms: int) -> psutil.Process | None:
    """The living process of this number that began then."""
    try:
        process = psutil.Process(pid)
        same = abs(_start_ms(process) - start_ms) <= _START_TOLERANCE_MS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, OverflowError):
        return None
    except psutil.AccessDenied:  # somebody else's, so not ours
        return None
