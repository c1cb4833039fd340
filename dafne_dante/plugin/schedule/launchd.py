"""An agent of the user's launchd; keys as in launchd.plist(5).

Invariants: launchd itself runs once what it missed while the machine slept, and at a login what was missed while it
was off (`RunAtLoad`); the log goes nowhere, since the jobs keep their own.
"""

import plistlib
from pathlib import Path

from dafne_dante.plugin.schedule.plan import Errand, PlannedFile, SchedulePlan

__all__ = ["LABEL", "plan_launchd"]

LABEL = "org.dafne-dante.nightly"


def plan_launchd(errand: Errand, folder: Path, user_number: int) -> SchedulePlan:
    """The plan; `folder` is ~/Library/LaunchAgents, the number is the user's own."""
    path = folder / f"{LABEL}.plist"
    content = plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": list(errand.command),
            "StartCalendarInterval": [{"Hour": call // 60, "Minute": call % 60} for call in errand.calls],
            "ProcessType": "Background",
            "LowPriorityIO": True,
            "Nice": 19,
            "RunAtLoad": True,
            "StandardOutPath": "/dev/null",
            "StandardErrorPath": "/dev/null",
        }
    )
    domain = f"gui/{user_number}"
    return SchedulePlan(
        "launchd",
        (PlannedFile(path, content),),
        (("launchctl", "bootstrap", domain, str(path)),),
        (("launchctl", "bootout", f"{domain}/{LABEL}"),),
        ("launchctl", "print", f"{domain}/{LABEL}"),
    )
