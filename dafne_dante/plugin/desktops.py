"""When somebody last used a desktop of Linux, as logind knows it: terminals tell nothing of X11 and Wayland.

Terms: the *idle hint* of a session is set by its desktop after some minutes without a key or the mouse, and taken back
with the next one (org.freedesktop.login1, `IdleHint` and `IdleSinceHint` in microseconds since 1970).

Invariants: a desktop that never set its hint tells nothing, so that it forbids nothing; nor does a system without
logind, or one that does not answer.
"""

import shutil
import subprocess
import time
from collections.abc import Sequence

__all__ = ["desktop_silence_s"]

_TIMEOUT_S = 5.0
_DESKTOPS = ("x11", "wayland", "mir")
_ASKED = ("Active", "Class", "IdleHint", "IdleSinceHint", "Type")
_MOST_SESSIONS = 100


def desktop_silence_s() -> float | None:
    """Seconds since somebody used a desktop that is shown; 0 for just now, None where nothing tells it."""
    program = shutil.which("loginctl")
    if program is None:
        return None
    listed = _told((program, "list-sessions", "--no-legend", "--no-pager"))
    names = [line.split()[0] for line in listed.splitlines() if line.split()][:_MOST_SESSIONS]
    if not names:
        return None
    wanted = [f"--property={name}" for name in _ASKED]
    shown = _told((program, "show-session", "--no-pager", *wanted, *names))
    silences = [_silence_s(dict(_pairs(session))) for session in shown.split("\n\n")]
    return min((one for one in silences if one is not None), default=None)


def _silence_s(session: dict[str, str]) -> float | None:
    is_desktop = session.get("Type") in _DESKTOPS and session.get("Class", "user") == "user"
    since_us = session.get("IdleSinceHint", "0")
    if not is_desktop or session.get("Active") != "yes" or not since_us.isdecimal() or int(since_us) == 0:
        return None
    return max(0.0, time.time() - int(since_us) / 1e6) if session.get("IdleHint") == "yes" else 0.0


def _pairs(text: str) -> list[tuple[str, str]]:
    parts = [line.partition("=") for line in text.splitlines()]
    return [(name, value) for name, mark, value in parts if mark]


def _told(command: Sequence[str]) -> str:
    """What a command prints; "" where it fails, or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 (logind's own program)
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
