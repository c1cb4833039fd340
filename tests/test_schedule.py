"""What is given to each scheduler says what it should by that scheduler's own reader, and is taken away completely."""

import configparser
import json
import plistlib
import shlex
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dafne_dante.config import NightlySettings, Settings
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.plugin.night import window_at
from dafne_dante.plugin.schedule.cron import plan_cron
from dafne_dante.plugin.schedule.launchd import LABEL, plan_launchd
from dafne_dante.plugin.schedule.plan import NAME, Errand
from dafne_dante.plugin.schedule.setting_up import (
    Answer,
    SystemShell,
    describe_plan,
    errand_of,
    install,
    is_installed,
    plan_for_system,
    remove,
    show,
)
from dafne_dante.plugin.schedule.systemd import plan_systemd
from dafne_dante.plugin.schedule.task_scheduler import NAMESPACE, plan_task_scheduler

AWKWARD = ("/opt/a b/python", "-m", "dafne_dante", "nightly", "--configuration", '/home/ä "x" $HOME/100%/\\n/<&>')
ERRAND = Errand(AWKWARD, 20 * 60 + 5, 6 * 60)
WITHIN = [f"{minutes // 60 % 24:02d}:{minutes % 60:02d}" for minutes in range(20 * 60 + 5, 30 * 60, 30)]
"""Every half hour of the window."""
OUTSIDE = [f"{hour:02d}:00" for hour in range(6, 21)]


class FakeShell:
    """Keeps a crontab, remembers every call, and refuses what a test says."""

    def __init__(self, crontab=None, refuses=()):
        self.crontab, self.refuses, self.calls = crontab, refuses, []

    def run(self, command, given=""):
        self.calls.append(tuple(command))
        if any(word in command for word in self.refuses):
            return Answer(False, "not\npermitted")
        if command == ("crontab", "-l"):
            return Answer(True, self.crontab) if self.crontab is not None else Answer(False, "no crontab for me")
        if command == ("crontab", "-"):
            self.crontab = given
        return Answer(True, "next at 20:00")


class Several(dict):
    """Keys that stand there several times keep all their values."""

    def __setitem__(self, key, value):
        if key in self and isinstance(value, list):
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def unit(plan, suffix):
    """A unit of systemd, read as the ini file that it is."""
    [file] = [file for file in plan.files if file.path.suffix == suffix]
    parser = configparser.RawConfigParser(delimiters=("=",), strict=False, dict_type=Several)
    parser.optionxform = str
    parser.read_string(file.content.decode())
    return parser


def times_of(calendar):
    """Lines of OnCalendar as times of day."""
    fields = [line.removeprefix("*-*-* ").split(":") for line in calendar.splitlines()]
    return sorted(f"{hour}:{minute}" for hours, minute, _ in fields for hour in hours.split(","))


def test_systemd_gets_a_timer_that_makes_up_for_missed_nights(tmp_path):
    plan = plan_systemd(ERRAND, tmp_path)
    timer, service = unit(plan, ".timer"), unit(plan, ".service")
    assert times_of(timer["Timer"]["OnCalendar"]) == sorted(WITHIN + OUTSIDE)
    assert timer["Timer"]["Persistent"] == "true"
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert service["Service"]["Type"] == "oneshot"
    undone = service["Service"]["ExecStart"].replace("%%", "%").replace("$$", "$")
    assert tuple(shlex.split(undone)) == AWKWARD


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_itself_is_content(tmp_path):
    program = tmp_path / "a b%c" / "run $HOME"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    plan = plan_systemd(Errand((str(program), 'x "y" 100%'), 1205, 360), tmp_path / "units")
    (tmp_path / "units").mkdir()
    for file in plan.files:
        file.path.write_bytes(file.content)
    names = [str(file.path) for file in plan.files]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", *names],
        env={"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    faults = [line for line in done.stderr.splitlines() if NAME in line]
    assert faults == []
    calendar = ["systemd-analyze", "calendar", *unit(plan, ".timer")["Timer"]["OnCalendar"].splitlines()]
    assert subprocess.run(calendar, capture_output=True, timeout=60, check=False).returncode == 0


def test_launchd_gets_an_agent(tmp_path):
    plan = plan_launchd(ERRAND, tmp_path, 501)
    agent = plistlib.loads(plan.files[0].content)
    assert tuple(agent["ProgramArguments"]) == AWKWARD
    assert [f"{one['Hour']:02d}:{one['Minute']:02d}" for one in agent["StartCalendarInterval"]] == WITHIN + OUTSIDE
    assert agent["RunAtLoad"] is True, "what was missed while the machine was off"
    assert (agent["Label"], plan.files[0].path.name) == (LABEL, f"{LABEL}.plist")
    assert plan.install == (("launchctl", "bootstrap", "gui/501", str(plan.files[0].path)),)
    assert plan.remove == (("launchctl", "bootout", f"gui/501/{LABEL}"),)


@pytest.mark.parametrize("only_on_power", [True, False])
def test_windows_gets_a_task_in_utf_16(tmp_path, only_on_power):
    plan = plan_task_scheduler(Errand(AWKWARD, 1205, 360, only_on_power), tmp_path)
    content = plan.files[0].content
    assert content.startswith(b"\xff\xfe")
    task = ElementTree.fromstring(content)

    def text(path):
        return task.find("/".join(f"{{{NAMESPACE}}}{part}" for part in path.split("/"))).text

    triggers = [
        {child.tag.split("}")[1]: child.text or [one.text for one in child] for child in trigger} for trigger in task[0]
    ]
    every_day = {"Enabled": "true", "ScheduleByDay": ["1"]}
    assert triggers == [
        {"Repetition": ["PT30M", "PT595M"], "StartBoundary": "2020-01-01T20:05:00", **every_day},
        {"Repetition": ["PT60M", "PT845M"], "StartBoundary": "2020-01-01T06:00:00", **every_day},
    ]
    assert next(iter(triggers[0])) == "Repetition", "the schema is a sequence"
    assert text("Settings/StartWhenAvailable") == "true"
    assert text("Settings/MultipleInstancesPolicy") == "IgnoreNew"
    assert text("Settings/DisallowStartIfOnBatteries") == str(only_on_power).lower()
    assert text("Actions/Exec/Command") == AWKWARD[0]
    assert text("Actions/Exec/Arguments") == subprocess.list2cmdline(AWKWARD[1:])
    order = [child.tag.split("}")[1] for child in task]
    assert order == ["Triggers", "Principals", "Settings", "Actions"], "the schema is a sequence"


def test_cron_gets_lines_of_its_own_and_keeps_the_others():
    plan, shell = plan_cron(ERRAND), FakeShell("MAILTO=me\n0 1 * * * backup # dafne-dante is backed up\n5 5 * * * x")
    before = shell.crontab
    install(plan, shell)
    install(plan, shell)
    assert shell.crontab.startswith(before + "\n")
    *hourly, start = ours = shell.crontab.splitlines()[3:]
    times = [f"{int(hour):02d}:{int(line.split()[0]):02d}" for line in hourly for hour in line.split()[1].split(",")]
    assert sorted(times) == sorted(WITHIN + OUTSIDE)
    assert all(line.split()[2:5] == ["*", "*", "*"] for line in hourly)
    nightly = hourly[0]
    assert start.startswith("@reboot sleep 600 && ")
    command = nightly.split(" ", 5)[5].replace("\\%", "%")
    words = shlex.split(command, comments=True)
    assert tuple(words[: len(AWKWARD)]) == AWKWARD
    assert "%" not in nightly.replace("\\%", "")
    assert show(plan, shell).splitlines() == ours
    assert remove(plan, shell)
    assert shell.crontab == before + "\n"
    assert not remove(plan, shell)


def test_a_user_without_a_crontab_gets_one():
    plan, shell = plan_cron(ERRAND), FakeShell()
    assert not is_installed(plan, shell)
    install(plan, shell)
    assert is_installed(plan, shell)


def test_a_crontab_that_cannot_be_read_is_not_written_anew():
    shell = FakeShell("0 1 * * * backup\n", refuses=("-l",))
    with pytest.raises(SettingsError, match="refuses"):
        install(plan_cron(ERRAND), shell)
    assert shell.crontab == "0 1 * * * backup\n"
    assert ("crontab", "-") not in shell.calls


@pytest.fixture(params=["systemd", "launchd", "windows"])
def plan(request, tmp_path):
    makers = {
        "systemd": lambda: plan_systemd(ERRAND, tmp_path / "new" / "units"),
        "launchd": lambda: plan_launchd(ERRAND, tmp_path / "new", 501),
        "windows": lambda: plan_task_scheduler(ERRAND, tmp_path / "new"),
    }
    return makers[request.param]()


def test_it_is_installed_shown_and_removed_without_a_trace(plan):
    shell = FakeShell()
    assert not is_installed(plan, shell)
    assert not remove(plan, shell)
    assert shell.calls == []
    install(plan, shell)
    assert shell.calls == list(plan.install)
    assert all(file.path.read_bytes() == file.content for file in plan.files)
    assert show(plan, shell) == "next at 20:00"
    install(plan, shell)
    shell.calls.clear()
    assert remove(plan, shell)
    assert shell.calls == list(plan.remove)
    assert not any(file.path.exists() for file in plan.files)


def test_a_scheduler_that_refuses_leaves_no_file(plan):
    with pytest.raises(SettingsError, match="refuses: not permitted"):
        install(plan, FakeShell(refuses=plan.install[-1]))
    assert not any(file.path.exists() for file in plan.files)


def test_a_folder_that_cannot_be_written_is_told(plan):
    folder = plan.files[0].path.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("")
    shell = FakeShell()
    with pytest.raises(StorageError, match="cannot create the folder"):
        install(plan, shell)
    assert shell.calls == []


def test_a_dry_run_tells_every_file_and_command(plan):
    told = describe_plan(plan)
    for file in plan.files:
        assert f"write {file.path}" in told
    assert all(f"call {' '.join(command)}" in told for command in plan.install)
    gone = describe_plan(plan, removing=True)
    assert all(f"remove {file.path}" in gone for file in plan.files)
    assert all(f"call {' '.join(command)}" in gone for command in plan.remove)
    assert "give to crontab -" in describe_plan(plan_cron(ERRAND))
    assert f"# {NAME}" in describe_plan(plan_cron(ERRAND))


@pytest.mark.parametrize(
    ("platform", "found", "systemd", "name"),
    [
        ("win32", (), False, "Windows Task Scheduler"),
        ("darwin", ("crontab",), False, "launchd"),
        ("linux", ("systemctl", "crontab"), True, "systemd"),
        ("linux", ("systemctl", "crontab"), False, "cron"),
        ("freebsd", ("crontab",), False, "cron"),
    ],
)
def test_the_system_decides_which_scheduler(tmp_path, platform, found, systemd, name):
    plan = plan_for_system(
        Settings(tmp_path),
        platform=platform,
        find=lambda command: command if command in found else None,
        runs_systemd=lambda: systemd,
    )
    assert plan.scheduler == name


def test_a_system_without_a_scheduler_is_told_what_to_do(tmp_path):
    with pytest.raises(SettingsError, match="dafne-dante nightly"):
        plan_for_system(Settings(tmp_path), platform="linux", find=lambda command: None)


def test_the_errand_is_this_installation_with_its_configuration(tmp_path):
    settings = Settings(tmp_path / "a b", nightly=NightlySettings(start="01:30", only_on_power=False))
    errand = errand_of(settings, python="python")
    assert errand.command[:4] == ("python", "-m", "dafne_dante", "nightly")
    assert errand.command[4:] == ("--configuration", str(tmp_path / "a b"))
    assert (errand.start, errand.stop, errand.only_on_power) == (90, 360, False)


@pytest.mark.parametrize(
    ("start", "stop", "within", "outside"),
    [
        ("20:00", "06:00", 20, 14),
        ("01:15", "02:00", 2, 24),
        ("00:00", "00:00", 48, 0),
        ("23:50", "00:05", 1, 24),
    ],
)
def test_the_command_is_called_every_half_hour_in_the_window_and_every_hour_outside(
    tmp_path, start, stop, within, outside
):
    wishes = NightlySettings(start=start, stop=stop)
    errand, day = errand_of(Settings(tmp_path, nightly=wishes)), datetime(2026, 11, 23, tzinfo=timezone.utc)
    moments = [day + timedelta(minutes=call) for call in errand.calls]
    assert [window_at(wishes, moment).is_now for moment in moments] == [True] * within + [False] * outside
    assert sorted(errand.calls) == sorted(
        60 * hour + minute for minute, hours in errand.hours_by_minute.items() for hour in hours
    )


@pytest.mark.parametrize("word", ["", "a\nb", "a\x00", "\x1b[0m", "a\u2028b"])
def test_a_folder_that_no_scheduler_can_hold_is_refused(word):
    with pytest.raises(SettingsError, match="control characters"):
        Errand(("python", word), 60, 120)


def test_a_command_that_is_missing_is_not_content():
    answer = SystemShell().run(("no-such-command-of-dafne-dante",))
    assert (answer.good, answer.text) == (False, "no-such-command-of-dafne-dante cannot be run: FileNotFoundError")
    assert SystemShell().run(("cat",), "given") == Answer(True, "given")


def test_the_command_line_shows_first_and_does_nothing_then(command, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    plan = plan_systemd(errand_of(Settings(tmp_path / "configuration")), tmp_path / ".config" / "systemd" / "user")
    monkeypatch.setattr("dafne_dante.plugin.schedule.setting_up.plan_for_system", lambda settings: plan)
    code, out, _ = command("schedule", "install", "--dry-run", "--json")
    assert (code, json.loads(out)["done"], "Persistent=true" in out) == (0, False, True)
    assert not Path(plan.files[0].path).exists()
    monkeypatch.setattr("dafne_dante.plugin.schedule.setting_up.SystemShell", FakeShell)
    assert command("schedule", "show")[0] == 1
    assert command("schedule", "install")[:2] == (0, "systemd runs dafne-dante every night from 20:00 on\n")
    assert command("schedule", "show")[:2] == (0, "next at 20:00\n")
    assert command("schedule", "remove", "--dry-run")[0] == 0
    assert plan.files[0].path.exists()
    assert command("schedule", "remove")[1] == "the nightly run was taken away\n"
    assert command("schedule", "remove")[1] == "there was no nightly run\n"
