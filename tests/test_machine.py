"""Whether somebody is at the machine is asked of the system, in the way that it has."""

import sys
import time

import pytest

from dafne_dante.plugin import desktops, machine
from dafne_dante.plugin.desktops import desktop_silence_s


def test_this_machine_answers():
    here = machine.SystemMachine()
    assert isinstance(here.is_on_power(), bool)
    assert isinstance(here.is_idle(), bool)


def test_a_terminal_that_was_just_used_is_told(tmp_path):
    (tmp_path / "pts").mkdir()
    assert machine._terminal_silence_s(tmp_path) is None
    (tmp_path / "pts" / "0").write_text("")
    assert machine._terminal_silence_s(tmp_path) < 60


LOGINCTL = """#!/bin/sh
sleep {wait}
if [ "$1" = list-sessions ]; then printf '%b' "{listed}"; else
    for word in "$@"; do case "$word" in --*|show-session) ;; *) cat "{folder}/$word"; echo ;; esac; done
fi
exit {code}
"""


@pytest.fixture
def logind(tmp_path, monkeypatch):
    """Put a loginctl on the PATH that knows these sessions."""

    def put(sessions, *, code=0, wait=0):
        for name, facts in sessions.items():
            since = 0 if facts["ago_s"] is None else int((time.time() - facts["ago_s"]) * 1e6)
            text = "".join(f"{key}={value}\n" for key, value in {"IdleSinceHint": since, **facts}.items())
            (tmp_path / name).write_text(text)
        listed = "".join(f"{name:>6} 1000 someone seat0\\n" for name in sessions)
        program = tmp_path / "loginctl"
        program.write_text(LOGINCTL.format(listed=listed, folder=tmp_path, code=code, wait=wait))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


def desktop(idle, ago_s, **changes):
    hint = "yes" if idle else "no"
    return {"ago_s": ago_s, "Type": "wayland", "Class": "user", "Active": "yes", "IdleHint": hint, **changes}


@pytest.mark.parametrize(
    ("sessions", "silence_s"),
    [
        ({"2": desktop(True, 900)}, 900),
        ({"2": desktop(False, 900)}, 0),
        ({"2": desktop(True, 900), "c3": desktop(False, 5, Type="x11")}, 0),
        ({"2": desktop(True, 900), "c3": desktop(True, 700, Type="x11")}, 700),
        ({"2": desktop(False, None)}, None),
        ({"2": desktop(False, 5, Active="no")}, None),
        ({"2": desktop(False, 5, Type="tty")}, None),
        ({"1": desktop(False, 5, Class="greeter"), "2": desktop(True, 900)}, 900),
        ({"2": desktop(True, 900, IdleSinceHint="soon")}, None),
        ({}, None),
    ],
    ids=[
        *("idle", "in use", "one of two in use", "both idle", "never told", "in the background", "a terminal"),
        *("login screen", "nonsense", "nobody logged in"),
    ],
)
def test_a_desktop_of_linux_is_asked_of_logind(logind, sessions, silence_s):
    logind(sessions)
    told = desktop_silence_s()
    assert told == (None if silence_s is None else pytest.approx(silence_s, abs=30))


def test_a_logind_that_fails_hangs_or_is_not_there_tells_nothing(logind, monkeypatch, tmp_path):
    logind({"2": desktop(False, 5)}, code=1)
    assert desktop_silence_s() is None
    monkeypatch.setattr(desktops, "_TIMEOUT_S", 0.2)
    logind({"2": desktop(False, 5)}, wait=3)
    assert desktop_silence_s() is None
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert desktop_silence_s() is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_somebody_at_a_desktop_is_at_the_machine(logind, monkeypatch):
    monkeypatch.setattr(machine, "_busy_percent", lambda: 0.0)
    monkeypatch.setattr(machine, "_terminal_silence_s", lambda devices: None)
    logind({"2": desktop(False, 900)})
    assert not machine.SystemMachine().is_idle()
    logind({"2": desktop(True, 900)})
    assert machine.SystemMachine().is_idle()
