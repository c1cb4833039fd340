"""A timer of the user's own systemd; units as in systemd.timer(5) and systemd.service(5).

Invariants: `Persistent=true` runs once what was missed when the machine is on again; every word of the command is
quoted as systemd.syntax(7) wants, so that no folder's name is taken for more than a name.
"""

from pathlib import Path

from dafne_dante.plugin.schedule.plan import NAME, Errand, PlannedFile, SchedulePlan

__all__ = ["plan_systemd"]

_SERVICE = """[Unit]
Description=Improve segmentation models from new annotations

[Service]
Type=oneshot
ExecStart={command}
Nice=19
IOSchedulingClass=idle
TimeoutStartSec=infinity
"""
_TIMER = """[Unit]
Description=Nightly improvement of segmentation models

[Timer]
{calendar}
Persistent=true
RandomizedDelaySec=300

[Install]
WantedBy=timers.target
"""


def plan_systemd(errand: Errand, folder: Path) -> SchedulePlan:
    """The plan; `folder` is where the user's units are, for example ~/.config/systemd/user."""
    program, *arguments = errand.command
    # A dollar begins a variable in the arguments, and is only itself in the program's path.
    words = [_quoted(program), *(_quoted(word).replace("$", "$$") for word in arguments)]
    service = _SERVICE.format(command=" ".join(words))
    calendar = "\n".join(
        f"OnCalendar=*-*-* {','.join(f'{hour:02d}' for hour in hours)}:{minute:02d}:00"
        for minute, hours in errand.hours_by_minute.items()
    )
    timer = _TIMER.format(calendar=calendar)
    control = ("systemctl", "--user")
    return SchedulePlan(
        "systemd",
        (
            PlannedFile(folder / f"{NAME}.service", service.encode()),
            PlannedFile(folder / f"{NAME}.timer", timer.encode()),
        ),
        ((*control, "daemon-reload"), (*control, "enable", "--now", f"{NAME}.timer")),
        ((*control, "disable", "--now", f"{NAME}.timer"), (*control, "daemon-reload")),
        (*control, "list-timers", "--all", "--no-pager", f"{NAME}.timer"),
    )


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
