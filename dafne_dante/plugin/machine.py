"""Whether the machine may be used for a night's work: plugged in, and nobody at it.

Invariants: a machine without a battery is plugged in. Nobody is at it when nothing was typed for `IDLE_S`, as far as
the system tells that, and its cores are used by half at most. A question that the system cannot answer forbids
nothing.
"""

import ctypes
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import psutil

from dafne_dante.plugin.desktops import desktop_silence_s

__all__ = ["IDLE_S", "Machine", "SystemMachine"]

IDLE_S = 600.0
_BUSY_PERCENT = 50.0
_SAMPLE_S = 0.5
_IOREG = ("/usr/sbin/ioreg", "-c", "IOHIDSystem", "-d", "4")


class Machine(Protocol):
    """What a nightly run asks; a seam for tests."""

    def is_on_power(self) -> bool:
        """Whether it does not run on a battery."""
        ...

    def is_idle(self) -> bool:
        """Whether nobody is at it."""
        ...


class SystemMachine:
    """This machine."""

    def is_on_power(self) -> bool:
        """As `Machine`."""
        battery = psutil.sensors_battery()
        return battery is None or battery.power_plugged is not False

    def is_idle(self) -> bool:
        """As `Machine`; the cores count only what is not of our own low priority."""
        silent_s = _seconds_without_input()
        return (silent_s is None or silent_s >= IDLE_S) and _busy_percent() < _BUSY_PERCENT


def _busy_percent() -> float:
    """Of all cores, what others than processes of low priority take (Linux, macOS), or all processes."""
    times = psutil.cpu_times_percent(interval=_SAMPLE_S)
    return float(100.0 - times.idle - getattr(times, "nice", 0.0) - getattr(times, "iowait", 0.0))


def _seconds_without_input() -> float | None:
    """Since somebody typed or moved the mouse; None where nothing tells it."""
    if sys.platform == "win32":
        return _windows_silence_s()
    if sys.platform == "darwin":
        return _mac_silence_s()
    told = (desktop_silence_s(), _terminal_silence_s(Path("/dev")))
    return min((one for one in told if one is not None), default=None)


def _terminal_silence_s(devices: Path) -> float | None:
    """Of every terminal, the last time it was read from: what `w` shows."""
    used = []
    for path in (*devices.glob("tty[0-9]*"), *devices.glob("pts/[0-9]*")):
        try:
            status = path.stat()
        except OSError:
            continue
        if status.st_atime > psutil.boot_time() + 60.0:
            used.append(status.st_atime)
    return time.time() - max(used) if used else None


def _mac_silence_s() -> float | None:
    try:
        told = subprocess.run(_IOREG, capture_output=True, timeout=10, check=False).stdout  # noqa: S603 (fixed)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(rb'"HIDIdleTime" = (\d{1,20})', told)
    return int(found.group(1)) / 1e9 if found else None


class _LastInput(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("tick", ctypes.c_uint))


def _windows_silence_s() -> float | None:
    system: Any = vars(ctypes).get("windll")
    last = _LastInput(ctypes.sizeof(_LastInput), 0)
    if system is None or not system.user32.GetLastInputInfo(ctypes.byref(last)):
        return None
    return float((system.kernel32.GetTickCount() - last.tick) % (1 << 32)) / 1000.0
