"""What a scheduler needs, as plain data.

Terms: the *errand* is the command that is to run every night, and when: it is called every half hour within the window,
as somebody may be at the machine at first, and every hour outside, where it only makes up for a window that was missed;
the command itself knows what is to be done and when that was done. A *plan* holds the files and the commands that
set it up in one scheduler, show it, and take it away.

Invariants: a plan is pure data, made without looking at the machine, so that a dry run shows all of it. Its files are
ours alone: what we take away is what we wrote.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.errors import SettingsError

__all__ = ["DAY", "EVERY_MINUTES", "EVERY_MINUTES_OUTSIDE", "NAME", "Edit", "Errand", "PlannedFile", "SchedulePlan"]

NAME = "dafne-dante-nightly"
Command = tuple[str, ...]
DAY = 24 * 60
EVERY_MINUTES, EVERY_MINUTES_OUTSIDE = 30, 60
"""Between two calls within the window, and outside."""


@dataclass(frozen=True)
class Errand:
    """What is to run every night.

    Attributes:
        command: program and arguments.
        start, stop: of the window, minutes since midnight, local time; equal for the whole day.
        only_on_power: whether the scheduler may already refuse on a battery.

    Raises:
        SettingsError: an argument has a line break or another control character, which no scheduler's file can hold.
    """

    command: tuple[str, ...]
    start: int
    stop: int
    only_on_power: bool = True

    def __post_init__(self) -> None:
        if not self.command or not all(word and word.isprintable() for word in self.command):
            raise SettingsError(
                "expected folders without line breaks and control characters, found one; install dafne-dante, or keep "
                "its configuration, in another folder"
            )

    @property
    def window_minutes(self) -> int:
        """How long the window is."""
        return (self.stop - self.start) % DAY or DAY

    @property
    def calls(self) -> tuple[int, ...]:
        """When the command is called, minutes since midnight, from the beginning of the window on."""
        window = self.window_minutes
        offsets = (*range(0, window, EVERY_MINUTES), *range(window, DAY, EVERY_MINUTES_OUTSIDE))
        return tuple((self.start + offset) % DAY for offset in offsets)

    @property
    def hours_by_minute(self) -> dict[int, list[int]]:
        """The same calls: for every minute of the hour the hours of the day, both rising."""
        found: dict[int, list[int]] = {}
        for call in sorted(self.calls, key=lambda call: (call % 60, call)):
            found.setdefault(call % 60, []).append(call // 60)
        return found


@dataclass(frozen=True)
class PlannedFile:
    """A file that a scheduler reads."""

    path: Path
    content: bytes


@dataclass(frozen=True)
class Edit:
    """A text that a command prints, is changed, and given to another one: how cron is told."""

    read: Command
    write: Command
    changed: Callable[[str], str]


@dataclass(frozen=True)
class SchedulePlan:
    """How one scheduler is set up.

    Attributes:
        scheduler: its name for a person.
        files: to write, and to remove.
        install, remove: commands, in their order; the files are written before the first of `install` and removed
            after the first of `remove`.
        show: a command that prints what the scheduler knows.
        add, drop: instead of files, where the scheduler has none of ours.
    """

    scheduler: str
    files: tuple[PlannedFile, ...]
    install: tuple[Command, ...]
    remove: tuple[Command, ...]
    show: Command
    add: Edit | None = None
    drop: Edit | None = None
