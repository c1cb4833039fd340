"""What a scheduler needs, as plain data.

Terms: the *errand* is the command that is to run every night, and when. A *plan* holds the files and the commands that
set it up in one scheduler, show it, and take it away.

Invariants: a plan is pure data, made without looking at the machine, so that a dry run shows all of it. Its files are
ours alone: what we take away is what we wrote.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.errors import SettingsError

__all__ = ["NAME", "Edit", "Errand", "PlannedFile", "SchedulePlan"]

NAME = "dafne-dante-nightly"
Command = tuple[str, ...]


@dataclass(frozen=True)
class Errand:
    """What is to run every night.

    Attributes:
        command: program and arguments.
        hour, minute: local time.
        only_on_power: whether the scheduler may already refuse on a battery.

    Raises:
        SettingsError: an argument has a line break or another control character, which no scheduler's file can hold.
    """

    command: tuple[str, ...]
    hour: int
    minute: int
    only_on_power: bool = True

    def __post_init__(self) -> None:
        if not self.command or not all(word and word.isprintable() for word in self.command):
            raise SettingsError(
                "expected folders without line breaks and control characters, found one; install dafne-dante, or keep "
                "its configuration, in another folder"
            )


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
