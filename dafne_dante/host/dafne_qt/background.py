"""Work away from the thread that paints, and its answer back in it.

Invariants: `done` runs in the thread that paints, `work` never; whatever the work raises, exactly one of `done` and
`failed` is called, so that whoever waits for an answer goes on; a DanteError comes as its words, anything else by the
name of its class only, which is written to the log, too, for its words may hold what is a patient's; an answer that
comes when its receiver is gone is dropped.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Thread
from types import TracebackType
from typing import Any

from PyQt5.QtCore import QObject, pyqtSignal

from dafne_dante.errors import DanteError
from dafne_dante.host.dafne_qt.words import OWN_FAULT

__all__ = ["Background"]


class Background(QObject):  # type: ignore[misc]
    """Runs work for the windows that it belongs to."""

    _answered = pyqtSignal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._answered.connect(_deliver)

    def run(
        self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[str], None] = lambda words: None
    ) -> None:
        """Begin `work` and return at once; then `done` gets what it returned, or `failed` why it could not."""
        Thread(target=self._work, args=(work, done, failed), name="dante", daemon=True).start()

    def _work(self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[str], None]) -> None:
        answer, receiver = None, failed
        with _Told() as fault:
            answer, receiver = work(), done
        try:
            self._answered.emit(receiver, fault.words or answer)
        except RuntimeError:
            return  # Qt has taken the window away


def _deliver(receiver: Callable[[Any], None], answer: Any) -> None:
    """In the thread that paints, where Qt ends the program for an exception."""
    with _Told():
        receiver(answer)


class _Told(AbstractContextManager["_Told"]):
    """Holds up what its block raises, and has it in `words`; what ends the program goes on."""

    def __init__(self) -> None:
        self.words = ""

    def __enter__(self) -> "_Told":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.words = str(error)
        if not isinstance(error, DanteError):
            self.words = OWN_FAULT.format(kind=type(error).__name__)
            print(f"dafne-dante: {self.words}", file=sys.stderr)  # Dafne shows its log to the person
        return True
