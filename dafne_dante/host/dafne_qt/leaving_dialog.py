"""The question when Dafne is closed while a job runs: let it go on, or stop it and keep the best so far.

Invariants: going on is the default, and what happens when nobody answers in time, so that nobody waits for it in vain
and no job is lost; it asks once, in the thread that paints, and decides nothing itself.
"""

from PyQt5.QtCore import Qt, QTimer
from PyQt5.QtWidgets import QDialog, QDialogButtonBox, QLabel, QVBoxLayout, QWidget

from dafne_dante.host.dafne_qt import words

__all__ = ["LeavingDialog"]

_WIDTH = 420
_SECOND_MS = 1000


class LeavingDialog(QDialog):  # type: ignore[misc]
    """`stops` is True when the person chose to stop; `patience_s` is counted down before their eyes."""

    def __init__(self, models: list[str], parent: QWidget | None = None, *, patience_s: int = 20) -> None:
        super().__init__(parent)
        self.stops, self._left_s = False, patience_s
        self.setWindowTitle(words.LEAVING_TITLE)
        self.setMinimumWidth(_WIDTH)
        told = QLabel(words.LEAVING.format(models=words.listed(models)))
        told.setWordWrap(True)
        told.setTextFormat(Qt.PlainText)
        self.buttons = QDialogButtonBox(Qt.Vertical)  # words of any length and size have their place
        self.go_on = self.buttons.addButton("", QDialogButtonBox.AcceptRole)
        self.stop = self.buttons.addButton(words.LEAVING_STOP, QDialogButtonBox.DestructiveRole)
        self.go_on.setDefault(True)
        self.go_on.clicked.connect(lambda checked: self.accept())
        self.stop.clicked.connect(lambda checked: self._stop())
        column = QVBoxLayout(self)
        column.addWidget(told)
        column.addWidget(self.buttons)
        self._timer = QTimer(self)
        self._timer.setInterval(_SECOND_MS)
        self._timer.timeout.connect(self._count)
        self._timer.start()
        self._tell()

    def _stop(self) -> None:
        self.stops = True
        self.accept()

    def _count(self) -> None:
        self._left_s -= 1
        self._tell()
        if self._left_s <= 0:
            self.accept()

    def _tell(self) -> None:
        self.go_on.setText(words.LEAVING_GO_ON.format(seconds=max(0, self._left_s)))
