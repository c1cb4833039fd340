"""What a person and a program see: one JSON object on stdout, everything else on stderr.

Invariants: with --json nothing but one object goes to stdout; refusals are one line on stderr and exit code 1; usage
errors are exit code 2; a person who presses Ctrl-C gets one line and exit code 130.
"""

import json
import sys
from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dafne_dante.errors import DanteError

if TYPE_CHECKING:
    from dafne_dante.annotations.collect import Collection, Survey

__all__ = ["epoch_bar", "errors_console", "in_words", "print_object", "run_guarded", "say", "tell"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells count

errors_console = Console(stderr=True, highlight=False, soft_wrap=True)


def run_guarded(application: Callable[[], object]) -> None:
    """Run the command line application; every error of our tree, and of the operating system, becomes one line."""
    try:
        application()
    except DanteError as error:
        _refuse(str(error))
    except OSError as error:
        # Files of ours are wrapped where they are written; this is what is left, for example a full /tmp.
        _refuse(f"the operating system refused: {error.strerror or type(error).__name__}")
    except KeyboardInterrupt:
        _stopped()
    except SystemExit as end:
        # How typer hands on Ctrl-C.
        if end.code == _INTERRUPTED:
            _stopped()
        raise


def print_object(value: Mapping[str, Any], *, as_json: bool, text: Callable[[], str]) -> None:
    """One JSON object on stdout, or the same as text for a person."""
    typer.echo(json.dumps(value, sort_keys=True) if as_json else text())


def epoch_bar(description: str) -> tuple[Progress, Callable[[int, int, float | None], None]]:
    """A progress bar with time left on stderr, and the function that moves it: (epoch, epochs, Dice or None)."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("Dice {task.fields[dice]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=errors_console,
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task(description, total=None, dice="-")

    def move(epoch: int, epochs: int, dice: float | None) -> None:
        bar.update(task, completed=epoch, total=epochs, dice="-" if dice is None else f"{dice:.3f}")

    return bar, move


def _stopped() -> NoReturn:
    # Ctrl-C inside code that was compiled from text (a dataclass, while torch is imported) leaves a flag behind, for
    # which CPython, run with -m, ends by the signal instead of our code (Modules/main.c). The next such code clears it,
    # and a namedtuple is one: this package runs no text of its own.
    namedtuple("Stopped", ())
    errors_console.print("stopped", markup=False)
    raise SystemExit(_INTERRUPTED)


def _refuse(reason: str) -> NoReturn:
    errors_console.print(" ".join(reason.split()), markup=False)
    raise SystemExit(1)


def say(text: str) -> None:
    """A sentence for the person, on stderr."""
    errors_console.print(text, markup=False)


def tell(survey: "Collection | Survey[Any]") -> None:
    """What was taken and left, on stderr."""
    from dafne_dante.annotations.collect import sentences

    for line in sentences(survey):
        say(line)


def in_words(dice: Mapping[str, float | None]) -> str:
    """Dice by label on one line."""
    return ", ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in dice.items())
