"""The dialog that asks which two models to show side by side, and on which case.

Invariants: it does nothing itself; it can be accepted only when there are a case and two different models.
"""

from PyQt5.QtCore import Qt, pyqtSignal
from PyQt5.QtWidgets import QComboBox, QDialog, QDialogButtonBox, QFormLayout, QLabel, QVBoxLayout, QWidget

from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.kept import CaseLine
from dafne_dante.host.dafne_qt.model_lines import VersionLine

__all__ = ["CompareDialog"]


class CompareDialog(QDialog):  # type: ignore[misc]
    """`chosen` tells the case and the numbers of both models."""

    chosen = pyqtSignal(str, int, int)

    def __init__(
        self, model_type: str, versions: list[VersionLine], cases: list[CaseLine], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(words.COMPARE_TITLE.format(model_type=model_type))
        self.setAttribute(Qt.WA_DeleteOnClose)
        self.case, self.one, self.other = QComboBox(), QComboBox(), QComboBox()
        for line in cases:
            self.case.addItem(line.told, line.case_id)
        for version in versions:
            self.one.addItem(version.told, version.number)
            self.other.addItem(version.told, version.number)
        self.one.setCurrentIndex(len(versions) - 1)  # the global one
        improved = [at for at, line in enumerate(versions) if line.number]
        used = [at for at in improved if versions[at].is_used]
        self.other.setCurrentIndex((used + improved + [0])[0])
        self.buttons = QDialogButtonBox(QDialogButtonBox.Ok | QDialogButtonBox.Cancel)
        self.buttons.button(QDialogButtonBox.Ok).setText(words.COMPARE_SHOW)
        self.buttons.accepted.connect(self._accept)
        self.buttons.rejected.connect(self.reject)
        for box in (self.case, self.one, self.other):
            box.currentIndexChanged.connect(lambda index: self._enable())
        form = QFormLayout()
        form.addRow(words.COMPARE_CASE, self.case if cases else QLabel(words.COMPARE_NO_CASE))
        form.addRow(words.COMPARE_ONE, self.one)
        form.addRow(words.COMPARE_OTHER, self.other)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.buttons)
        self._enable()

    def _enable(self) -> None:
        differ = self.one.currentData() != self.other.currentData()
        self.buttons.button(QDialogButtonBox.Ok).setEnabled(differ and self.case.currentData() is not None)

    def _accept(self) -> None:
        self.chosen.emit(self.case.currentData(), self.one.currentData(), self.other.currentData())
        self.accept()
