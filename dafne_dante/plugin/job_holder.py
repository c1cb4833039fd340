"""Which process holds a job, so that another one can tell whether it still lives.

Terms: a holder is the text `HOST PID START TOKEN`: the machine's name as a digest, the process's number, a number that
stands for the moment when it began, and 16 random hexadecimal digits of this one claim.

Invariants
- A clock that is set anew changes no START: on Linux it is made from the boot's own id and the ticks since then, and
  elsewhere the system keeps the moment.
- A number that the system gave to another process is never taken for the holder; on another machine nothing is known of
  a process, so only silence tells that it is gone.
"""

import hashlib
import os
import platform
import secrets
from pathlib import Path
from typing import Protocol

import psutil

from dafne_dante.durable import read_bounded
from dafne_dante.errors import StorageError

__all__ = ["Census", "SystemCensus", "end_holder", "own_holder"]

_FOREIGN_SILENCE_S = 3600.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_BYTES = 8192


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
        host, pid, start = parts
        if host != _host():
            return silent_s > _FOREIGN_SILENCE_S
        return _process(pid, start) is None


def own_holder() -> str:
    """This process as the holder of a new claim."""
    pid = os.getpid()
    return f"{_host()} {pid} {_start(psutil.Process(pid))} {secrets.token_hex(8)}"


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


def _start(process: psutil.Process) -> int:
    """A number below 10^15 for the moment when the process began; psutil.Error when it is gone."""
    try:
        boot = read_bounded(_BOOT_ID, max_bytes=_MAX_BYTES)
        status = read_bounded(Path(f"/proc/{process.pid}/stat"), max_bytes=_MAX_BYTES)
        # proc(5): the name may hold anything, brackets included; the 22nd field is the 20th after it.
        ticks = status.rsplit(b")", 1)[1].split()[19]
    except (StorageError, IndexError):
        return round(process.create_time() * 1000)
    return int(hashlib.sha256(boot + ticks).hexdigest()[:12], 16)


def _parts(holder: str) -> tuple[str, int, int] | None:
    words = holder.split(" ")
    if len(words) != 4 or not all(word.isascii() and word.isdigit() and len(word) < 18 for word in words[1:3]):
        return None
    return words[0], int(words[1]), int(words[2])


def _process(pid: int, start: int) -> psutil.Process | None:
    """The living process of this number that began then."""
    try:
        process = psutil.Process(pid)
        return process if _start(process) == start and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, OverflowError):
        return None
    except psutil.AccessDenied:  # somebody else's, so not ours
        return None
