"""The plugin's button, its status line and its menu entries in Dafne's toolbox, and what they open.

Facts, from reading Dafne 2.1.0a0: the toolbox has `menuTools`, and `verticalLayout_11` is its scrolled column, where
the button for automatic segmentation stands in a row of its own.

Invariants: nothing of Dafne's is taken away or connected otherwise; what a store is asked is asked in another thread.
"""

from threading import Thread
from typing import Any

from PyQt5.QtCore import QObject, QTimer, pyqtSignal
from PyQt5.QtGui import QGuiApplication
from PyQt5.QtWidgets import QAction, QLabel, QPushButton

from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.activity_window import ActivityWindow
from dafne_dante.host.dafne_qt.background import Background
from dafne_dante.host.dafne_qt.desk import Activity, Desk
from dafne_dante.host.dafne_qt.drawn import model_type_of
from dafne_dante.host.dafne_qt.improve_dialog import ImproveDialog
from dafne_dante.host.dafne_qt.job_lines import JobLine
from dafne_dante.host.dafne_qt.leaving_dialog import LeavingDialog
from dafne_dante.host.dafne_qt.log import say_to_log
from dafne_dante.host.dafne_qt.model_plan import loaded_model
from dafne_dante.host.dafne_qt.notice import Notice
from dafne_dante.host.dafne_qt.readiness import Ready
from dafne_dante.host.guarding import guarded

__all__ = ["Attached"]

_AFTER_AUTOSEGMENT = 4
_LOOK_MS = 3000
_NOBODY_LOOKS = ("offscreen", "minimal")


class Attached(QObject):  # type: ignore[misc]
    """What the plugin added to a window of Dafne's; `wanted` opens the dialog from any thread.

    `asks`: whether somebody is there to answer when Dafne is closed.
    """

    wanted = pyqtSignal()

    def __init__(self, window: Any, desk: Desk) -> None:
        toolbox = window.toolbox_window
        super().__init__(toolbox)
        self._window, self._toolbox, self._desk = window, toolbox, desk
        self._background, self._is_looking, self._told = Background(self), False, words.STATUS_NOTHING
        self._jobs: list[JobLine] = []
        self.asks = QGuiApplication.platformName() not in _NOBODY_LOOKS
        self.leaving: LeavingDialog | None = None
        self.notice = Notice(toolbox)
        self.dialog: ImproveDialog | None = None
        self.activity: ActivityWindow | None = None
        self.button = QPushButton(words.IMPROVE)
        self.button.clicked.connect(guarded(lambda checked: self.ask(), say_to_log, words.NOT_SHOWN))
        self.status = QLabel(words.STATUS_NOTHING)
        self.status.setWordWrap(True)
        toolbox.verticalLayout_11.insertWidget(_AFTER_AUTOSEGMENT, self.button)
        toolbox.verticalLayout_11.insertWidget(_AFTER_AUTOSEGMENT + 1, self.status)
        toolbox.menuTools.addSeparator()
        self._entry(words.IMPROVE, self.ask)
        self._entry(words.ACTIVITY, self.show_activity)
        self._entry(words.SETTINGS, self._show_settings)
        self.wanted.connect(guarded(self.ask, say_to_log, words.NOT_SHOWN))
        desk.forget_models = self._forget
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self._look_at_status)
        self._timer.start()
        self._look_at_status()

    def ask(self) -> None:
        """Look what is there, and open the dialog when that is known."""
        model_type = model_type_of(self._window)
        loaded = loaded_model(self._window, model_type)
        self.status.setText(words.LOOKING)
        self._background.run(
            lambda: self._desk.ready(model_type, loaded),
            self._open,
            lambda fault: self._open(Ready(model_type, missing=fault)),
        )

    def show_activity(self) -> None:
        """Open the Activity window, or bring it to the front."""
        if self.activity is None:
            self.activity = ActivityWindow(self._desk, self._toolbox)
        self.activity.show()
        self.activity.raise_()

    def leave(self) -> None:
        """Ask what is to become of the jobs that run, as Dafne is being closed; nobody is asked who cannot answer."""
        running = [job for job in self._jobs if job.is_running]
        if not running or not self.asks:
            return
        self.leaving = LeavingDialog([job.model_type for job in running], self._toolbox)
        self.leaving.exec_()
        if self.leaving.stops:
            # The program waits for this thread before it ends.
            stop = guarded(self._desk.leave, say_to_log, words.NOT_STOPPED)
            Thread(target=stop, args=([job.job_id for job in running],), name="leaving").start()

    def _show_settings(self) -> None:
        self.show_activity()
        if self.activity is not None:
            self.activity.show_settings()

    def _look_at_status(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._background.run(self._desk.activity, self._show_activity, self._show_status)

    def _show_activity(self, found: Activity) -> None:
        alive = {job.job_id for job in self._jobs if job.is_alive}
        ended = [job for job in found.jobs if job.job_id in alive and not job.is_alive]
        self._jobs = found.jobs
        if ended:
            told = [
                words.NOTICE.format(model_type=job.model_type, state=job.state, told=job.told) for job in ended
            ]  # fmt: skip
            self.notice.tell("\n".join(told))
        self._show_status(found.told)

    def _show_status(self, told: str) -> None:
        self._is_looking = False
        self._told = told or self._told
        if self._told != self.status.text():
            self.status.setText(self._told)

    def _entry(self, text: str, chosen: Any) -> None:
        action = QAction(text, self)
        action.triggered.connect(guarded(lambda checked: chosen(), say_to_log, words.NOT_SHOWN))
        self._toolbox.menuTools.addAction(action)

    def _open(self, ready: Ready) -> None:
        self.status.setText(self._told)
        self.dialog = ImproveDialog(ready, self._toolbox)
        self.dialog.chosen.connect(lambda method, send: self._improve(ready.model_type, method, send))
        self.dialog.named.connect(self._name_labels)
        self.dialog.show()

    def _name_labels(self, names: dict[str, str]) -> None:
        """Take the names into the settings, and look again what there is to learn from."""
        self._background.run(lambda: self._desk.name_labels(names), lambda told: self.ask(), self.notice.tell)

    def _improve(self, model_type: str, method: str, send: bool) -> None:
        self.show_activity()
        self._background.run(
            lambda: self._desk.improve(model_type, method, send=send), lambda job: self._look(), self._fault
        )

    def _forget(self) -> None:
        self._window.dl_segmenters.clear()  # a dict that Dafne makes later than its toolbox

    def _look(self) -> None:
        if self.activity is not None:
            self.activity.look()

    def _fault(self, fault: str) -> None:
        if self.activity is not None:
            self.activity.told.setText(fault)
