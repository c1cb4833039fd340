"""The page of the Activity window on what waits to be sent, and on what has left: when, to whom, bytes, digest.

Invariants: it asks nothing itself and shows what it is given; the report of a chosen line is opened by the window.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from PyQt5.QtWidgets import QLabel, QPushButton, QTableWidget, QVBoxLayout, QWidget

from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.sending_lines import SentLine, WaitingLine
from dafne_dante.host.dafne_qt.tables import fill_table, make_table

__all__ = ["SendingPage"]


class SendingPage(QWidget):  # type: ignore[misc]
    """`open_report` gets the page of the job whose update is chosen."""

    def __init__(self, open_report: Callable[[Path], None]) -> None:
        super().__init__()
        self._open_report = open_report
        self._reports: dict[QTableWidget, list[Path | None]] = {}
        self.told = QLabel("")
        self.told.setWordWrap(True)
        self.waiting, self.sent = make_table(words.WAITING_COLUMNS), make_table(words.SENT_COLUMNS)
        self.buttons = {table: self._button(table) for table in (self.waiting, self.sent)}
        column = QVBoxLayout(self)
        column.addWidget(self.told)
        for title, table in ((words.WAITING_TITLE, self.waiting), (words.SENT_TITLE, self.sent)):
            column.addWidget(QLabel(title))
            column.addWidget(table, 1)
            column.addWidget(self.buttons[table])
        self.show_lines("", [], [])

    def show_lines(self, told: str, waiting: Sequence[WaitingLine], sent: Sequence[SentLine]) -> None:
        """What waits, in one sentence and line by line, and what has left."""
        self.told.setText(told or words.NOTHING_WAITS)
        self._reports = {self.waiting: [one.report for one in waiting], self.sent: [one.report for one in sent]}
        fill_table(self.waiting, [(one.model_type, one.since, one.size, one.why) for one in waiting])
        rows = [(one.when, one.to, one.model_type, one.size, one.outcome, one.sha256) for one in sent]
        fill_table(self.sent, rows)
        self._enable()

    def _button(self, table: QTableWidget) -> QPushButton:
        button = QPushButton(words.REPORT)
        button.setAutoDefault(False)
        button.clicked.connect(lambda checked: self._open(table))
        table.itemSelectionChanged.connect(self._enable)
        return button

    def _chosen(self, table: QTableWidget) -> Path | None:
        reports, row = self._reports.get(table, []), table.currentRow()
        return reports[row] if 0 <= row < len(reports) else None

    def _enable(self) -> None:
        for table, button in self.buttons.items():
            button.setEnabled(self._chosen(table) is not None)

    def _open(self, table: QTableWidget) -> None:
        report = self._chosen(table)
        if report is not None:
            self._open_report(report)
