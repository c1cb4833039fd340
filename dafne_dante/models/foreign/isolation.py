"""What a process gives up for good before it runs code that came in a model file.

Invariants: all of it or an IsolationError, never less; afterwards no file can be opened but those of the Python
installation, for reading; there is no network, no new process, no signal; memory, processor time and threads are
bounded; capabilities are gone, also those of root. Only the standard library is imported here, because the kernel
isolates the calling thread alone: torch, which starts threads, comes afterwards.
"""

import ctypes
import os
import struct
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.models.foreign.landlock import MINIMUM_VERSION, landlock_version, leave_only_reading
from dafne_dante.models.foreign.syscall_filter import filter_system_calls, knows_this_machine

if sys.platform != "win32":
    import resource

__all__ = ["IsolationError", "Limits", "isolate", "missing_isolation"]

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_HARDWARE = ("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/dev/urandom")
_NO_NEW_PRIVILEGES, _DIE_WITH_PARENT, _NOT_DUMPABLE = (38, 1), (1, 9), (4, 0)
_CAPABILITIES = {"x86_64": 126, "aarch64": 91}
_MORE_THREADS = 64


class IsolationError(Exception):
    """The system does not isolate; the text says what is missing. Never leaves the child process."""


@dataclass(frozen=True)
class Limits:
    """What the code of a model may use.

    Attributes:
        seconds: from start to answer, for one image.
        memory_bytes: address space, libraries included (torch itself takes about 1 GiB, with CUDA several).
        threads: for arithmetic.
        max_answer_bytes: of masks; further output ends the process.
    """

    seconds: float = 600.0
    memory_bytes: int = 12 * 1024**3
    threads: int = 4
    max_answer_bytes: int = 4 * 1024**3


def missing_isolation() -> str:
    """What this system lacks, in words; empty where a process can be isolated."""
    if not sys.platform.startswith("linux"):
        return f"Linux, found {sys.platform}, whose means we do not use"
    if not knows_this_machine():
        return f"an x86_64 or aarch64 processor, found {os.uname().machine}"
    if (found := landlock_version()) < MINIMUM_VERSION:
        return f"a kernel with Landlock {MINIMUM_VERSION} (Linux 6.2) switched on, found Landlock {found}"
    return ""


def isolate(limits: Limits, package: Path) -> None:
    """Give up everything but arithmetic and the reading of the Python installation and of `package`; cannot be undone.

    Raises:
        IsolationError: the system lacks a part, refused one, or there is more than one thread already.
    """
    if missing := missing_isolation():
        raise IsolationError(missing)
    if int(_status(Path("/proc/self/status"))["Threads"]) != 1:
        raise IsolationError("one thread, found more")
    try:
        _bound(limits)
        _prctl(*_NO_NEW_PRIVILEGES)
        _drop_capabilities()
        _prctl(*_NOT_DUMPABLE)
        _prctl(*_DIE_WITH_PARENT)
        leave_only_reading(_readable(package))
        filter_system_calls()
    except OSError as error:
        raise IsolationError(f"isolation by the kernel, found error {error.errno}") from error


def _bound(limits: Limits) -> None:
    seconds = max(1, int(limits.seconds * limits.threads))
    for kind, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NPROC, _threads_of_this_user() + limits.threads + _MORE_THREADS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        hard = resource.getrlimit(kind)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (least, least))
    os.nice(10)


def _threads_of_this_user() -> int:
    """The kernel counts all threads of a user against the limit, so it must lie above those that are there."""
    count = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = _status(folder / "status")
            except OSError:  # ended meanwhile
                continue
            count += int(status["Threads"]) if int(status["Uid"].split()[0]) == os.getuid() else 0
    return count


def _status(path: Path) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _readable(package: Path) -> list[Path]:
    """The Python installation, its shared libraries and this package; not what else lies on sys.path."""
    installed = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    base = {Path(sys.base_prefix) / "lib", Path(sys.exec_prefix) / "lib"}
    return sorted(installed | base) + [package] + [Path(name) for name in (*_LIBRARIES, *_HARDWARE)]


def _drop_capabilities() -> None:
    """capset(2), version 3: nothing effective, permitted or inheritable."""
    library = ctypes.CDLL(None, use_errno=True)
    header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    if library.syscall(_CAPABILITIES[os.uname().machine], header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    rest = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    if library.prctl(option, *rest) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
