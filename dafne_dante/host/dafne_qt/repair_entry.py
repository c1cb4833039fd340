"""The entry in Dafne's Tools while the settings cannot be used.

Invariants: nothing of Dafne's is taken away or connected otherwise; settings are read and written away from the thread
that paints.
"""

from typing import Any

from PyQt5.QtCore import QObject
from PyQt5.QtWidgets import QAction

from dafne_dante.config import SettingsLook, look_at_settings
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.background import Background
from dafne_dante.host.dafne_qt.log import say_to_log
from dafne_dante.host.dafne_qt.mending import mend
from dafne_dante.host.dafne_qt.notice import Notice
from dafne_dante.host.dafne_qt.settings_dialog import SettingsDialog
from dafne_dante.host.guarding import guarded

__all__ = ["RepairEntry"]


class RepairEntry(QObject):  # type: ignore[misc]
    """Opens the settings with what is wrong in them."""

    def __init__(self, toolbox: Any, why: str) -> None:
        super().__init__(toolbox)
        self._toolbox, self._background = toolbox, Background(self)
        self.notice = Notice(toolbox)
        self.dialog: SettingsDialog | None = None
        self.action = QAction(words.SETTINGS, self)
        self.action.triggered.connect(guarded(lambda checked: self.ask(), say_to_log, words.NOT_SHOWN))
        toolbox.menuTools.addSeparator()
        toolbox.menuTools.addAction(self.action)
        self.notice.tell(words.WITHOUT_PLUGIN.format(why=why))

    def ask(self) -> None:
        """Look at the settings, and open them."""
        self._background.run(look_at_settings, self._open, self.notice.tell)

    def _open(self, look: SettingsLook) -> None:
        self.dialog = SettingsDialog(look, self._toolbox)
        self.dialog.chosen.connect(
            lambda changes: self._background.run(
                lambda: mend(look.settings.folder, changes), self.notice.tell, self.notice.tell
            )
        )
        self.dialog.show()
