"""A task of the Windows Task Scheduler; elements as in MS-TSCH, section 2.5, in its order.

Invariants: `StartWhenAvailable` runs a missed night when the machine is on again; arguments are quoted as programs of
Windows take them apart; the file is UTF-16, which `schtasks /XML` wants.
"""

import subprocess
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from dafne_dante.plugin.schedule.plan import (
    DAY,
    EVERY_MINUTES,
    EVERY_MINUTES_OUTSIDE,
    NAME,
    Errand,
    PlannedFile,
    SchedulePlan,
)

__all__ = ["NAMESPACE", "plan_task_scheduler"]

NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
_FIRST_DAY = "2020-01-01"


def plan_task_scheduler(errand: Errand, folder: Path) -> SchedulePlan:
    """The plan; `folder` is the configuration's, where the task's description stays."""
    path = folder / f"{NAME}.xml"
    return SchedulePlan(
        "Windows Task Scheduler",
        (PlannedFile(path, ElementTree.tostring(_task(errand), encoding="utf-16", xml_declaration=True)),),
        (("schtasks", "/Create", "/TN", NAME, "/XML", str(path), "/F"),),
        (("schtasks", "/Delete", "/TN", NAME, "/F"),),
        ("schtasks", "/Query", "/TN", NAME, "/V", "/FO", "LIST"),
    )


def _task(errand: Errand) -> Element:
    task = Element("Task", {"version": "1.2", "xmlns": NAMESPACE})
    triggers, window = SubElement(task, "Triggers"), errand.window_minutes
    _repeat(triggers, errand.start, every=EVERY_MINUTES, minutes=window)
    if window < DAY:
        _repeat(triggers, errand.stop, every=EVERY_MINUTES_OUTSIDE, minutes=DAY - window)
    principal = SubElement(SubElement(task, "Principals"), "Principal", {"id": "Author"})
    _put(principal, LogonType="InteractiveToken", RunLevel="LeastPrivilege")
    on_power = "true" if errand.only_on_power else "false"
    _put(
        SubElement(task, "Settings"),
        MultipleInstancesPolicy="IgnoreNew",
        DisallowStartIfOnBatteries=on_power,
        StopIfGoingOnBatteries="false",  # the run itself ends its worker, so that nothing is lost
        StartWhenAvailable="true",
        ExecutionTimeLimit="PT24H",
        Priority="9",
    )
    program, *arguments = errand.command
    action = SubElement(SubElement(task, "Actions", {"Context": "Author"}), "Exec")
    _put(action, Command=program, Arguments=subprocess.list2cmdline(arguments))
    return task


def _repeat(triggers: Element, begin: int, *, every: int, minutes: int) -> None:
    """Every day from a minute of the day on, every so many minutes, for so long."""
    trigger = SubElement(triggers, "CalendarTrigger")
    if every < minutes:
        _put(SubElement(trigger, "Repetition"), Interval=f"PT{every}M", Duration=f"PT{minutes}M")
    _put(trigger, StartBoundary=f"{_FIRST_DAY}T{begin // 60:02d}:{begin % 60:02d}:00", Enabled="true")
    _put(SubElement(trigger, "ScheduleByDay"), DaysInterval="1")


def _put(parent: Element, **children: str) -> None:
    for name, text in children.items():
        SubElement(parent, name).text = text
