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
    QGroupBox,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from dafne_dante.annotations.suggestions import Suggestion
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.readiness import Ready
from dafne_dante.plugin.report.words import bytes_in_words

__all__ = ["ImproveDialog"]

_WIDTH = 460
_SECONDS_A_MINUTE = 60


class ImproveDialog(QDialog):  # type: ignore[misc]
    """`chosen` tells method and whether to send, once, when the person asks for it; `named` which of the site's names
    are to stand for which labels of the model."""

    chosen = pyqtSignal(str, bool)
    named = pyqtSignal(dict)

    def __init__(self, ready: Ready, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(words.IMPROVE_TITLE.format(model_type=ready.model_type or words.A_MODEL))
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
        self.names = {one.name: _labels(one) for one in ready.suggestions if one.labels}
        self.use_names = QPushButton(words.UNKNOWN_USE)
        self.use_names.setAutoDefault(False)
        self.use_names.clicked.connect(lambda checked: self._name())
        self._lay_out()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setVerticalSpacing(12)
        form.addRow(words.LEARNS_FROM, _paragraph(_what(self._ready)))
        form.addRow("", _paragraph(self._ready.missing or words.READY))
        if not self._ready.missing:
            form.addRow(words.HOW, self.method)
            form.addRow(words.TAKES, _paragraph(_takes(self._ready)))
            form.addRow("", self.send)
            form.addRow("", self._leaves)
        column = QVBoxLayout(self)
        column.addLayout(form)
        if self._ready.suggestions:
            column.addWidget(self._unknown())
        column.addWidget(self.buttons)

    def _unknown(self) -> QGroupBox:
        """What the model does not know, with what it may stand for."""
        box, form = QGroupBox(words.UNKNOWN_NAMES), QFormLayout()
        for one in self._ready.suggestions:
            known = self.names.get(one.name)
            form.addRow(*((one.name, known) if known else (_paragraph(words.UNKNOWN_NONE.format(name=one.name)),)))
        if self.names:
            form.addRow("", self.use_names)
        box.setLayout(form)
        return box

    def _name(self) -> None:
        chosen = {name: box.currentData() for name, box in self.names.items() if box.currentData()}
        if chosen:
            self.named.emit(chosen)
            self.accept()

    def _tell_what_leaves(self) -> None:
        leaves = _leaves(self._ready, self.method.currentData())
        self._leaves.setText(leaves if self.send.isChecked() else words.NOTHING_LEAVES)

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


def _labels(suggestion: Suggestion) -> QComboBox:
    """The labels that a name may stand for; the likest is chosen where it is clear, else none is."""
    box = QComboBox()
    for label in suggestion.labels:
        box.addItem(label, label)
    box.addItem(words.UNKNOWN_LEFT, "")
    box.setCurrentIndex(0 if suggestion.clear else box.count() - 1)
    return box


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
