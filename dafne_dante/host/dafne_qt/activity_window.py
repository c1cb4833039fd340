"""The Activity window: every job with how far it is or how it ended, its report, which models are used; on a page of
its own what waits to be sent, and what has left.

Invariants: it looks again every second, away from the thread that paints, and never while the last look still runs;
stopping a job asks in another thread as well; nothing takes the focus.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PyQt5.QtCore import Qt, QTimer, QUrl
from PyQt5.QtGui import QDesktopServices
from PyQt5.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from dafne_dante.config import SettingsLook
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.background import Background
from dafne_dante.host.dafne_qt.compare_dialog import CompareDialog
from dafne_dante.host.dafne_qt.desk import Activity, Desk
from dafne_dante.host.dafne_qt.job_lines import JobLine
from dafne_dante.host.dafne_qt.kept import CaseLine
from dafne_dante.host.dafne_qt.log import say_to_log
from dafne_dante.host.dafne_qt.model_lines import LocalLine, VersionLine
from dafne_dante.host.dafne_qt.sending_page import SendingPage
from dafne_dante.host.dafne_qt.settings_dialog import SettingsDialog
from dafne_dante.host.dafne_qt.tables import fill_table, make_table
from dafne_dante.host.guarding import guarded

__all__ = ["ActivityWindow"]

_LOOK_MS = 1000
_SIZE = (820, 480)


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
        self._versions_of = ""
        self.setWindowTitle(words.ACTIVITY_TITLE)
        self.resize(*_SIZE)
        self.setAttribute(Qt.WA_ShowWithoutActivating)
        self.told = QLabel(words.ACTIVITY_EMPTY)
        self.told.setWordWrap(True)
        self.models = QLabel("")
        self.models.setWordWrap(True)
        self.table = make_table(words.COLUMNS)
        self.table.itemSelectionChanged.connect(self._enable)
        self.keep = self._button(words.CANCEL_KEEP, lambda: self._stop(keep=True))
        self.drop = self._button(words.CANCEL_NOTHING, lambda: self._stop(keep=False))
        self.report = self._button(words.REPORT, self._show_report)
        self.back = self._button(words.BACK_TO_GLOBAL, lambda: self._use(0))
        self.versions = QComboBox()
        self.use = self._button(words.USE, lambda: self._use(self.versions.currentData()))
        self.compare = self._button(words.COMPARE, self._compare)
        self.sending = SendingPage(self._open_page)
        self.pause = QCheckBox(words.PAUSE)
        self.pause.clicked.connect(self._pause)
        self.settings = self._button(words.SETTINGS_BUTTON, self.show_settings)
        self.comparing: CompareDialog | None = None
        self.changing: SettingsDialog | None = None
        self._lay_out()
        self._background = Background(self)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(guarded(self.look, say_to_log, words.NOT_SHOWN))
        self._timer.start()
        self._enable()
        self.look()

    def look(self) -> None:
        """Ask what is new; what comes is shown when it comes."""
        if not self._is_looking:
            self._is_looking = True
            self._background.run(self._desk.activity, self._show, self._tell_fault)

    def show_settings(self) -> None:
        """Read the settings, and open them when that is done."""
        self._background.run(self._desk.look_at_settings, self._open_settings, self._tell_fault)

    def _open_settings(self, look: SettingsLook) -> None:
        self.changing = SettingsDialog(look, self)
        self.changing.chosen.connect(self._change)
        self.changing.show()

    def _lay_out(self) -> None:
        page = QWidget()
        jobs = QVBoxLayout(page)
        jobs.addWidget(self.table, 1)
        jobs.addLayout(_row(self.keep, self.drop, self.report))
        jobs.addWidget(self.models)
        jobs.addLayout(_row(self.back, QLabel(words.VERSIONS), self.versions, self.use, self.compare))
        self.pages = QTabWidget()
        self.pages.addTab(page, words.PAGE_JOBS)
        self.pages.addTab(self.sending, words.PAGE_SENDING)
        column = QVBoxLayout(self)
        column.addWidget(self.told)
        column.addWidget(self.pages, 1)
        column.addLayout(_row(self.pause, self.settings))

    def _button(self, text: str, pressed: Callable[[], None]) -> QPushButton:
        button = QPushButton(text)
        button.setAutoDefault(False)
        button.clicked.connect(guarded(lambda checked: pressed(), say_to_log, words.NOT_SHOWN))
        return button

    def _show(self, found: Activity) -> None:
        self._is_looking = False
        chosen = self._chosen()
        self._jobs, self._locals = found.jobs, found.locals
        self.told.setText(found.told or words.ACTIVITY_EMPTY)
        self.models.setText("\n".join(line.told for line in self._locals))
        self.sending.show_lines(found.outbox, found.waiting, found.sent)
        self.pause.setChecked(found.paused)
        fill_table(self.table, [(job.model_type, job.trigger, job.state, job.told) for job in self._jobs])
        for row, job in enumerate(self._jobs):
            if chosen is not None and job.job_id == chosen.job_id and row != self.table.currentRow():
                self.table.selectRow(row)
        self._enable()

    def _tell_fault(self, fault: str) -> None:
        self._is_looking = False
        self.told.setText(fault)

    def _chosen(self) -> JobLine | None:
        row = self.table.currentRow()
        return self._jobs[row] if 0 <= row < len(self._jobs) else None

    def _enable(self) -> None:
        chosen, model = self._chosen(), self._model()
        self.drop.setEnabled(chosen is not None and chosen.is_alive)
        can_keep = chosen is not None and chosen.can_keep
        nothing_yet = chosen is not None and chosen.is_alive and not can_keep
        self.keep.setEnabled(can_keep)
        self.keep.setText(words.CANCEL_KEEP_NOTHING if nothing_yet else words.CANCEL_KEEP)
        self.keep.setToolTip(words.NOTHING_TO_KEEP if nothing_yet else "")
        self.report.setEnabled(chosen is not None and chosen.report is not None)
        self.back.setEnabled(model is not None and model.is_improved)
        for widget in (self.versions, self.use, self.compare):
            widget.setEnabled(model is not None)
        told = model.told if model is not None else ""
        if told != self._versions_of:  # another model, or another version of it
            self._versions_of = told
            self.versions.clear()
            if model is not None:
                self._ask_choices(model.model_type, self._show_versions)

    def _model(self) -> LocalLine | None:
        """The model whose versions are shown: the chosen job's, or the only one."""
        chosen = self._chosen()
        if chosen is None:
            return self._locals[0] if len(self._locals) == 1 else None
        return next((line for line in self._locals if line.model_type == chosen.model_type), None)

    def _ask_choices(self, model_type: str, done: Callable[[tuple[list[VersionLine], list[CaseLine]]], None]) -> None:
        self._background.run(lambda: self._desk.choices(model_type), done, self._tell_fault)

    def _show_versions(self, found: tuple[list[VersionLine], list[CaseLine]]) -> None:
        self.versions.clear()
        for line in found[0]:
            self.versions.addItem(line.told, line.number)
            if line.is_used:
                self.versions.setCurrentIndex(self.versions.count() - 1)

    def _stop(self, *, keep: bool) -> None:
        chosen = self._chosen()
        if chosen is not None:
            job_id = chosen.job_id
            self._background.run(lambda: self._desk.stop(job_id, keep=keep), lambda told: self.look(), self._tell_fault)

    def _show_report(self) -> None:
        chosen = self._chosen()
        if chosen is not None and chosen.report is not None:
            self._open_page(chosen.report)

    def _use(self, number: int | None) -> None:
        model = self._model()
        if model is not None and number is not None:
            model_type = model.model_type
            self._background.run(lambda: self._desk.use(model_type, number), lambda told: self.look(), self._tell_fault)

    def _compare(self) -> None:
        model = self._model()
        if model is not None:
            model_type = model.model_type
            self._ask_choices(model_type, lambda found: self._open_comparison(model_type, *found))

    def _open_comparison(self, model_type: str, versions: list[VersionLine], cases: list[CaseLine]) -> None:
        self.comparing = CompareDialog(model_type, versions, cases, self)
        self.comparing.chosen.connect(
            lambda case_id, before, after: self._show_comparison(model_type, case_id, before, after)
        )
        self.comparing.show()

    def _show_comparison(self, model_type: str, case_id: str, before: int, after: int) -> None:
        self.told.setText(words.COMPARING)
        self._background.run(
            lambda: self._desk.compare(model_type, case_id, before, after), self._open_page, self._tell_fault
        )

    def _pause(self, paused: bool) -> None:
        self._background.run(lambda: self._desk.pause(paused=paused), lambda told: self.look(), self._tell_fault)

    def _change(self, changes: dict[str, Any]) -> None:
        self._background.run(
            lambda: self._desk.change(changes),
            lambda told: self.told.setText(f"{words.SETTINGS_NEXT} {told}".strip()),
            self._tell_fault,
        )


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget, int(isinstance(widget, QComboBox)))
    row.addStretch()
    return row


def _open(path: Path) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))
