"""The plugin's button and menu entries in Dafne's toolbox, and what they open.

Facts, from reading Dafne 2.1.0a0: the toolbox has `menuTools`, and `verticalLayout_11` is its scrolled column, where
the button for automatic segmentation stands in a row of its own.

Invariants: nothing of Dafne's is taken away or connected otherwise; what a store is asked is asked in another thread.
"""

from typing import Any

from PyQt5.QtCore import QObject, pyqtSignal
from PyQt5.QtWidgets import QAction, QPushButton

from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.activity_window import ActivityWindow
from dafne_dante.host.dafne_qt.background import Background
from dafne_dante.host.dafne_qt.desk import Desk
from dafne_dante.host.dafne_qt.drawn import model_type_of
from dafne_dante.host.dafne_qt.improve_dialog import ImproveDialog
from dafne_dante.host.dafne_qt.shown import Ready

__all__ = ["Attached"]

_AFTER_AUTOSEGMENT = 4


class Attached(QObject):  # type: ignore[misc]
    """What the plugin added to a window of Dafne's; `wanted` opens the dialog from any thread."""

    wanted = pyqtSignal()

    def __init__(self, window: Any, desk: Desk) -> None:
        toolbox = window.toolbox_window
        super().__init__(toolbox)
        self._window, self._toolbox, self._desk = window, toolbox, desk
        self._background = Background(self)
        self.dialog: ImproveDialog | None = None
        self.activity: ActivityWindow | None = None
        self.button = QPushButton(words.IMPROVE)
        self.button.clicked.connect(lambda checked: self.ask())
        toolbox.verticalLayout_11.insertWidget(_AFTER_AUTOSEGMENT, self.button)
        toolbox.menuTools.addSeparator()
        self._entry(words.IMPROVE, self.ask)
        self._entry(words.ACTIVITY, self.show_activity)
        self.wanted.connect(self.ask)
        desk.forget_models = self._forget

    def ask(self) -> None:
        """Look what is there, and open the dialog when that is known."""
        model_type = model_type_of(self._window)
        self._background.run(
            lambda: self._desk.ready(model_type), self._open, lambda fault: self._open(Ready(model_type, missing=fault))
        )

    def show_activity(self) -> None:
        """Open the Activity window, or bring it to the front."""
        if self.activity is None:
            self.activity = ActivityWindow(self._desk, self._toolbox)
        self.activity.show()
        self.activity.raise_()

    def _entry(self, text: str, chosen: Any) -> None:
        action = QAction(text, self)
        action.triggered.connect(lambda checked: chosen())
        self._toolbox.menuTools.addAction(action)

    def _open(self, ready: Ready) -> None:
        self.dialog = ImproveDialog(ready, self._toolbox)
        self.dialog.chosen.connect(lambda method, send: self._improve(ready.model_type, method, send))
        self.dialog.show()

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
