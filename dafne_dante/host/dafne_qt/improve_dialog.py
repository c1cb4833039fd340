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
from dafne_dante.plugin.report.words import bytes_in_words

__all__ = ["ImproveDialog"]

_WIDTH = 460
_MOST_LABELS = 8
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
        self.method.currentIndexChanged.connect(self._tell_what_leaves)
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
        leaves = _leaves(self._ready, self.method.currentData())
        self._leaves.setText(leaves if self.send.isChecked() else words.NOTHING_LEAVES)

    def _accept(self) -> None:
        self.chosen.emit(self.method.currentData(), self.send.isChecked())
        self.accept()


def _what(ready: Ready) -> str:
    if not ready.cases:
        return "-"
    shown = ", ".join(ready.labels[:_MOST_LABELS]) + (", ..." if len(ready.labels) > _MOST_LABELS else "")
    studies = words.counted(words.STUDIES, ready.cases)
    return words.CASES.format(studies=studies, slices=words.counted(words.SLICES, ready.slices), labels=shown)


def _takes(ready: Ready) -> str:
    seconds = ready.last_s or ready.about_s
    if not seconds:
        return words.TAKES_UNKNOWN
    minutes = words.counted(words.MINUTES, max(1, round(seconds / _SECONDS_A_MINUTE)))
    return (words.TAKES_AS_LAST if ready.last_s else words.TAKES_ABOUT).format(minutes=minutes)


def _leaves(ready: Ready, method: str) -> str:
    """Where to, what, and how much where that can be told."""
    sent, about = ready.sent_bytes.get(method), ready.about_bytes.get(method)
    size = ""
    if sent:
        size = words.SENDS_LIKE_LAST.format(size=bytes_in_words(sent))
    elif about:
        size = words.SENDS_ABOUT.format(size=bytes_in_words(about))
    return words.SENDS.format(server=ready.server, size=size)


def _paragraph(text: str) -> QLabel:
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.PlainText)
    label.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.MinimumExpanding)
    return label
