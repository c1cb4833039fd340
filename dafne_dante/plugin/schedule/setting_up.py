"""Choose the system's scheduler, and do or tell what its plan says.

Invariants: a dry run changes nothing; where a command of the setting-up fails, the files that were written for it are
removed again; taking away what is not there is no error.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dafne_dante.config import Settings, configuration_folder
from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.plugin.schedule.cron import plan_cron
from dafne_dante.plugin.schedule.launchd import plan_launchd
from dafne_dante.plugin.schedule.plan import Edit, Errand, SchedulePlan
from dafne_dante.plugin.schedule.systemd import plan_systemd
from dafne_dante.plugin.schedule.task_scheduler import plan_task_scheduler

__all__ = [
    "Answer", "Shell", "SystemShell", "describe_plan", "errand_of", "install", "is_installed", "plan_for_system",
    "remove", "show",
]  # fmt: skip

_TIMEOUT_S = 60.0
_MAX_SHOWN = 4000


@dataclass(frozen=True)
class Answer:
    """What a command said, and whether it was content."""

    good: bool
    text: str


class Shell(Protocol):
    """Runs a scheduler's commands; a seam for tests."""

    def run(self, command: Sequence[str], given: str = "") -> Answer:
        """Run a command with this text as its input."""
        ...


class SystemShell:
    """The system's own commands."""

    def run(self, command: Sequence[str], given: str = "") -> Answer:
        """As `Shell`; a command that is missing or takes a minute is not content."""
        try:
            done = subprocess.run(  # noqa: S603 (a scheduler's own command)
                command, input=given.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.SubprocessError) as error:
            return Answer(False, f"{command[0]} cannot be run: {type(error).__name__}")
        text = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).decode(errors="replace")
        return Answer(done.returncode == 0, text)


def errand_of(settings: Settings, *, python: str = sys.executable) -> Errand:
    """The nightly run of this installation with these settings."""
    command = [python, "-m", "dafne_dante", "nightly"]
    if settings.folder != configuration_folder({}):
        command += ["--configuration", str(settings.folder.absolute())]
    wishes = settings.nightly
    return Errand(tuple(command), _minutes(wishes.start), _minutes(wishes.stop), wishes.only_on_power)


def _minutes(time_of_day: str) -> int:
    """HH:MM as minutes since midnight."""
    hours, minutes = time_of_day.split(":")
    return 60 * int(hours) + int(minutes)


def plan_for_system(
    settings: Settings,
    *,
    platform: str = sys.platform,
    find: Callable[[str], str | None] = shutil.which,
    environment: Mapping[str, str] = os.environ,
    runs_systemd: Callable[[], bool] = lambda: Path("/run/systemd/system").is_dir(),
) -> SchedulePlan:
    """The plan for this system's scheduler; SettingsError where it has none that we know."""
    errand, home = errand_of(settings), Path.home()
    if platform == "win32":
        return plan_task_scheduler(errand, settings.folder)
    if platform == "darwin":
        return plan_launchd(errand, home / "Library" / "LaunchAgents", _user_number())
    if find("systemctl") and runs_systemd():
        configuration = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
        return plan_systemd(errand, configuration / "systemd" / "user")
    if find("crontab"):
        return plan_cron(errand)
    raise SettingsError(
        "expected a scheduler (systemd, launchd, Windows Task Scheduler or cron), found none; let another program call "
        "`dafne-dante nightly` every half hour"
    )


def describe_plan(plan: SchedulePlan, *, removing: bool = False, before: str = "") -> str:
    """All that would be written and called, for a person; `before` is the crontab as it is."""
    lines = [f"scheduler: {plan.scheduler}"]
    for file in plan.files:
        lines.append(f"{'remove' if removing else 'write'} {file.path}")
        if not removing:
            lines += [f"    {line}" for line in _as_text(file.content).splitlines()]
    edit = plan.drop if removing else plan.add
    if edit is not None:
        lines.append(f"give to {' '.join(edit.write)}:")
        lines += [f"    {line}" for line in edit.changed(before).splitlines()]
    lines += [f"call {' '.join(command)}" for command in (plan.remove if removing else plan.install)]
    return "\n".join(lines)


def install(plan: SchedulePlan, shell: Shell) -> None:
    """Set the scheduler up, also where it was before.

    Raises:
        StorageError: a file cannot be written.
        SettingsError: the scheduler refuses; its files are removed again.
    """
    if plan.scheduler == "launchd" and is_installed(plan, shell):
        _call(plan.remove, shell, tolerant=True)  # it does not take an agent twice
    for file in plan.files:
        make_folder(file.path.parent)
        write_atomically(file.path, file.content)
    try:
        _call(plan.install, shell, tolerant=False)
        if plan.add is not None:
            _edit(plan.add, shell)
    except SettingsError:
        _delete(plan)
        raise


def remove(plan: SchedulePlan, shell: Shell) -> bool:
    """Take the nightly run out of the scheduler; whether it was there. Raises as `install`."""
    was_there = is_installed(plan, shell)
    if was_there:
        _call(plan.remove[:1], shell, tolerant=True)
        _delete(plan)
        _call(plan.remove[1:], shell, tolerant=True)
        if plan.drop is not None:
            _edit(plan.drop, shell)
    return was_there


def is_installed(plan: SchedulePlan, shell: Shell) -> bool:
    """Whether any of it is there."""
    if plan.drop is not None:
        text = _table(plan.drop, shell)
        return plan.drop.changed(text) != text
    return any(file.path.exists() for file in plan.files)


def show(plan: SchedulePlan, shell: Shell) -> str:
    """What the scheduler says of it, at most 4000 characters; only our own lines of a crontab."""
    if plan.drop is not None:
        text = _table(plan.drop, shell)
        others = set(plan.drop.changed(text).splitlines())
        return "\n".join(line for line in text.splitlines() if line not in others)[:_MAX_SHOWN]
    return shell.run(plan.show).text[:_MAX_SHOWN]


def _call(commands: Sequence[Sequence[str]], shell: Shell, *, tolerant: bool) -> None:
    for command in commands:
        answer = shell.run(command)
        if not answer.good and not tolerant:
            said = " ".join(answer.text.split())[:300]
            raise SettingsError(f"expected {command[0]} to set up the nightly run, found that it refuses: {said}")


def _edit(edit: Edit, shell: Shell) -> None:
    answer = shell.run(edit.write, edit.changed(_table(edit, shell)))
    if not answer.good:
        raise SettingsError(f"expected {edit.write[0]} to take the nightly run, found that it refuses; ask who runs it")


def _table(edit: Edit, shell: Shell) -> str:
    """The crontab; a user who has none gets a refusal that says so.

    Raises:
        SettingsError: it cannot be read, so that nobody's lines are lost by writing it anew.
    """
    answer = shell.run(edit.read)
    if not answer.good and "no crontab" not in answer.text.lower():
        raise SettingsError(f"expected {edit.read[0]} to show what it has, found that it refuses; ask who runs it")
    return answer.text if answer.good else ""


def _delete(plan: SchedulePlan) -> None:
    try:
        for file in plan.files:
            file.path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove what was scheduled: {error.strerror or type(error).__name__}") from error


def _as_text(content: bytes) -> str:
    return content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8")


def _user_number() -> int:
    return os.getuid() if sys.platform != "win32" else 0
