"""The Activity window: every job with how far it is or how it ended, its report, and which models are used.

Invariants: it looks again every second, away from the thread that paints, and never while the last look still runs;
stopping a job asks in another thread as well; nothing takes the focus.
"""

from collections.abc import Callable
from pathlib import Path

from PyQt5.QtCore import Qt, QTimer, QUrl
from PyQt5.QtGui import QDesktopServices
from PyQt5.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.background import Background
from dafne_dante.host.dafne_qt.desk import Desk
from dafne_dante.host.dafne_qt.shown import JobLine, LocalLine

__all__ = ["ActivityWindow"]

_LOOK_MS = 1000
_SIZE = (760, 420)


class ActivityWindow(QDialog):  # type: ignore[misc]
    """Shows what the desk knows; `open_page` opens a report, by default with the system's browser."""

    def __init__(
        self,
        desk: Desk,
        parent: QWidget | None = None,
        *,
        open_page: Callable[[Path], None] | None = None,
    ) -> None:
        super().__init__(parent)
        self._desk, self._open_page, self._is_looking = desk, open_page or _open, False
        self._jobs: list[JobLine] = []
        self._locals: list[LocalLine] = []
        self.setWindowTitle(words.ACTIVITY_TITLE)
        self.resize(*_SIZE)
        self.setAttribute(Qt.WA_ShowWithoutActivating)
        self.told = QLabel(words.ACTIVITY_EMPTY)
        self.told.setWordWrap(True)
        self.models = QLabel("")
        self.models.setWordWrap(True)
        self.table = _table()
        self.table.itemSelectionChanged.connect(self._enable)
        self.keep = self._button(words.CANCEL_KEEP, lambda: self._stop(keep=True))
        self.drop = self._button(words.CANCEL_NOTHING, lambda: self._stop(keep=False))
        self.report = self._button(words.REPORT, self._show_report)
        self.back = self._button(words.BACK_TO_GLOBAL, self._back)
        self._lay_out()
        self._background = Background(self)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self.look)
        self._timer.start()
        self._enable()
        self.look()

    def look(self) -> None:
        """Ask what is new; what comes is shown when it comes."""
        if not self._is_looking:
            self._is_looking = True
            self._background.run(self._desk.activity, self._show, self._tell_fault)

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        for button in (self.keep, self.drop, self.report, self.back):
            row.addWidget(button)
        column = QVBoxLayout(self)
        for widget in (self.told, self.table, self.models):
            column.addWidget(widget)
        column.addLayout(row)

    def _button(self, text: str, pressed: Callable[[], None]) -> QPushButton:
        button = QPushButton(text)
        button.setAutoDefault(False)
        button.clicked.connect(lambda checked: pressed())
        return button

    def _show(self, found: tuple[list[JobLine], list[LocalLine], str]) -> None:
        self._is_looking = False
        chosen = self._chosen()
        self._jobs, self._locals, sentence = found
        self.told.setText(sentence or words.ACTIVITY_EMPTY)
        self.models.setText("\n".join(line.told for line in self._locals))
        self.table.setRowCount(len(self._jobs))
        for row, job in enumerate(self._jobs):
            for column, text in enumerate((job.model_type, job.trigger, job.state, job.told)):
                self.table.setItem(row, column, QTableWidgetItem(text))
            if chosen is not None and job.job_id == chosen.job_id:
                self.table.selectRow(row)
        self._enable()

    def _tell_fault(self, fault: str) -> None:
        self._is_looking = False
        self.told.setText(fault)

    def _chosen(self) -> JobLine | None:
        row = self.table.currentRow()
        return self._jobs[row] if 0 <= row < len(self._jobs) else None

    def _enable(self) -> None:
        chosen = self._chosen()
        for button in (self.keep, self.drop):
            button.setEnabled(chosen is not None and chosen.is_alive)
        self.report.setEnabled(chosen is not None and chosen.report is not None)
        self.back.setEnabled(self._improved() is not None)

    def _improved(self) -> LocalLine | None:
        """The model to go back from: the chosen job's, or the only one."""
        chosen, improved = self._chosen(), [line for line in self._locals if line.is_improved]
        if chosen is None:
            return improved[0] if len(improved) == 1 else None
        return next((line for line in improved if line.model_type == chosen.model_type), None)

    def _stop(self, *, keep: bool) -> None:
        chosen = self._chosen()
        if chosen is not None:
            job_id = chosen.job_id
            self._background.run(lambda: self._desk.stop(job_id, keep=keep), lambda told: self.look(), self._tell_fault)

    def _show_report(self) -> None:
        chosen = self._chosen()
        if chosen is not None and chosen.report is not None:
            self._open_page(chosen.report)

    def _back(self) -> None:
        improved = self._improved()
        if improved is not None:
            model_type = improved.model_type
            self._background.run(lambda: self._desk.use_global(model_type), lambda told: self.look(), self._tell_fault)


def _table() -> QTableWidget:
    table = QTableWidget(0, len(words.COLUMNS))
    table.setHorizontalHeaderLabels(list(words.COLUMNS))
    table.setSelectionBehavior(QAbstractItemView.SelectRows)
    table.setSelectionMode(QAbstractItemView.SingleSelection)
    table.setEditTriggers(QAbstractItemView.NoEditTriggers)
    table.verticalHeader().hide()
    table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeToContents)
    table.horizontalHeader().setStretchLastSection(True)
    return table


def _open(path: Path) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))
