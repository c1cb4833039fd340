"""Work away from the thread that paints, and its answer back in it.

Invariants: `done` runs in the thread that paints, `work` never; a DanteError of the work comes as its words; an answer
that comes when its receiver is gone is dropped.
"""

from collections.abc import Callable
from threading import Thread
from typing import Any

from PyQt5.QtCore import QObject, pyqtSignal

from dafne_dante.errors import DanteError

__all__ = ["Background"]


class Background(QObject):  # type: ignore[misc]
    """Runs work for the windows that it belongs to."""

    _answered = pyqtSignal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._answered.connect(lambda done, answer: done(answer))

    def run(
        self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[str], None] = lambda words: None
    ) -> None:
        """Begin `work` and return at once; then `done` gets what it returned, or `failed` why it could not."""
        Thread(target=self._work, args=(work, done, failed), name="dante", daemon=True).start()

    def _work(self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[str], None]) -> None:
        try:
            answer, receiver = work(), done
        except DanteError as error:
            answer, receiver = str(error), failed
        try:
            self._answered.emit(receiver, answer)
        except RuntimeError:
            return  # Qt has taken the window away
