"""Lines in the user's crontab(5), where there is nothing better.

Invariants: our lines end with a mark, and no other line is touched; cron forgets what it missed, so the last line looks
whether a night was missed when the machine begins.
"""

import shlex

from dafne_dante.plugin.schedule.plan import NAME, Edit, Errand, SchedulePlan

__all__ = ["plan_cron"]

_MARK = f"# {NAME}"
_AFTER_START_S = 600


def plan_cron(errand: Errand) -> SchedulePlan:
    """The plan."""
    # A percent sign is the end of the command for cron, also between quotes.
    command = shlex.join(errand.command).replace("%", "\\%")
    lines = (
        *(
            f"{minute} {','.join(map(str, hours))} * * * {command} >/dev/null 2>&1 {_MARK}"
            for minute, hours in errand.hours_by_minute.items()
        ),
        f"@reboot sleep {_AFTER_START_S} && {command} >/dev/null 2>&1 {_MARK}",
    )

    def without(text: str) -> str:
        return "".join(line for line in text.splitlines(keepends=True) if not line.rstrip().endswith(_MARK))

    def with_ours(text: str) -> str:
        others = without(text)
        gap = "\n" if others and not others.endswith("\n") else ""
        return others + gap + "".join(f"{line}\n" for line in lines)

    read, write = ("crontab", "-l"), ("crontab", "-")
    return SchedulePlan("cron", (), (), (), read, Edit(read, write, with_ours), Edit(read, write, without))
