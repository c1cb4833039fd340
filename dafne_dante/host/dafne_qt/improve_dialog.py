"""The dialog of the "Improve model" button: what it would learn from, how, and what would leave the house.

Invariants: it begins nothing itself; it can be accepted only when nothing is missing; it never blocks Dafne's window.
"""

from PyQt5.QtCore import Qt, pyqtSignal
from PyQt5.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.shown import Ready

__all__ = ["ImproveDialog"]

_WIDTH = 460
_SECONDS_A_MINUTE = 60


class ImproveDialog(QDialog):  # type: ignore[misc]
    """`chosen` tells method and whether to send, once, when the person asks for it."""

    chosen = pyqtSignal(str, bool)

    def __init__(self, ready: Ready, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(words.IMPROVE_TITLE.format(model_type=ready.model_type or "model"))
        self.setMinimumWidth(_WIDTH)
        self.setAttribute(Qt.WA_DeleteOnClose)
        self._ready = ready
        self.method = QComboBox()
        for name, told in words.METHODS.items():
            self.method.addItem(told, name)
        self.send = QCheckBox(words.SEND)
        self.send.setEnabled(ready.can_send)
        self.send.setChecked(ready.can_send)
        self._leaves = _paragraph("")
        self.send.toggled.connect(self._tell_what_leaves)
        self._tell_what_leaves()
        self.buttons = QDialogButtonBox(QDialogButtonBox.Ok | QDialogButtonBox.Cancel)
        self.buttons.button(QDialogButtonBox.Ok).setText(words.START)
        self.buttons.button(QDialogButtonBox.Ok).setEnabled(not ready.missing)
        self.buttons.accepted.connect(self._accept)
        self.buttons.rejected.connect(self.reject)
        self._lay_out()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setVerticalSpacing(12)
        form.addRow(words.LEARNS_FROM, _paragraph(_what(self._ready)))
        form.addRow("", _paragraph(self._ready.missing or words.READY))
        form.addRow(words.HOW, self.method)
        form.addRow(words.TAKES, _paragraph(_takes(self._ready)))
        form.addRow("", self.send)
        form.addRow("", self._leaves)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.buttons)

    def _tell_what_leaves(self) -> None:
        self._leaves.setText(words.SENDS if self.send.isChecked() else words.NOTHING_LEAVES)

    def _accept(self) -> None:
        self.chosen.emit(self.method.currentData(), self.send.isChecked())
        self.accept()


def _what(ready: Ready) -> str:
    if not ready.kept:
        return "-"
    studies = words.counted(words.STUDIES, ready.kept)
    form = words.CASES if ready.cases == ready.kept else words.CASES_OF
    slices, labels = words.counted(words.SLICES, ready.slices), words.listed(ready.labels) or "-"
    return "\n".join([form.format(used=ready.cases, studies=studies, slices=slices, labels=labels), *ready.left])


def _takes(ready: Ready) -> str:
    if not ready.last_s:
        return words.TAKES_UNKNOWN
    return words.TAKES_AS_LAST.format(minutes=max(1, round(ready.last_s / _SECONDS_A_MINUTE)))


def _paragraph(text: str) -> QLabel:
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.PlainText)
    label.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.MinimumExpanding)
    return label
