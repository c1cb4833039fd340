"""The dialog of the settings that a person at Dafne needs: server and key, when, what may leave, limits.

Terms: a setting is *replaced* when the hospital's settings file or the environment decides it, whatever is said here.

Invariants: it writes nothing itself and tells only what was changed, and what was faulty; a key that is set is never
shown; what a value may be is checked where settings are read, and the fault is told there. What is replaced cannot be
changed here, and it is said why. Another server is not accepted without its key: the one that is set is another's.
"""

from typing import Any

from PyQt5.QtCore import Qt, pyqtSignal
from PyQt5.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from dafne_dante.config import Settings, SettingsLook
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.fields import choice, count, held_by, number, secret, switch, text, time_of_day

__all__ = ["SettingsDialog"]

_WIDTH = 1080
_DAY_MIN, _DAY_S = 1440.0, 86400.0


class SettingsDialog(QDialog):  # type: ignore[misc]
    """`chosen` tells the changed settings by their names; nothing when none was changed."""

    chosen = pyqtSignal(dict)

    def __init__(self, look: SettingsLook, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(words.SETTINGS_TITLE)
        self.setMinimumWidth(_WIDTH)
        self.setAttribute(Qt.WA_DeleteOnClose)
        self._look, self.fields = look, dict[str, QWidget]()
        self.told = QLabel("\n".join((words.SETTINGS_FAULTS, *look.faults)) if look.faults else "")
        self.buttons = QDialogButtonBox(QDialogButtonBox.Save | QDialogButtonBox.Cancel)
        self._lay_out(look.settings)
        self._before = self.values()
        for name, by in look.replaced.items():
            if name in self.fields:
                self.fields[name].setEnabled(False)
                self.fields[name].setToolTip(words.SETTINGS_REPLACED[by])
        self.buttons.accepted.connect(self._accept)
        self.buttons.rejected.connect(self.reject)
        for name in ("server", "api_key"):
            self.fields[name].textChanged.connect(self._ask_for_the_key)

    def values(self) -> dict[str, Any]:
        """What the fields hold, by setting."""
        return {name: held_by(field) for name, field in self.fields.items()}

    def _lay_out(self, settings: Settings) -> None:
        self.told.setWordWrap(True)
        self.told.setTextFormat(Qt.PlainText)
        self.told.setVisible(bool(self._look.faults))
        left, right = QVBoxLayout(), QVBoxLayout()
        left.addWidget(self._server(settings))
        left.addWidget(self._triggers(settings))
        right.addWidget(self._privacy(settings))
        right.addWidget(self._limits(settings))
        for side in (left, right):
            side.addStretch()
        sides, column = QHBoxLayout(), QVBoxLayout(self)
        sides.addLayout(left, 1)
        sides.addLayout(right, 1)
        column.addWidget(self.told)
        column.addLayout(sides)
        column.addWidget(self.buttons)

    def _server(self, settings: Settings) -> QGroupBox:
        return self._group(
            words.GROUP_SERVER,
            (words.SETTINGS_SERVER, "server", text(settings.server)),
            (words.SETTINGS_KEY, "api_key", secret(is_set=bool(settings.api_key))),
        )

    def _triggers(self, settings: Settings) -> QGroupBox:
        worker, nightly = settings.worker, settings.nightly
        return self._group(
            words.GROUP_TRIGGERS,
            ("", "after_save", switch(words.SETTINGS_SAVE, on=worker.after_save)),
            (words.SETTINGS_AFTER, "after_save_s", number(worker.after_save_s, _DAY_S, suffix=" s", decimals=0)),
            (words.SETTINGS_SLICES, "after_slices", count(worker.after_slices, 1_000_000, least=1)),
            (words.SETTINGS_METHOD, "automatic_method", choice(worker.automatic_method)),
            ("", "every_night", switch(words.SETTINGS_NIGHTS, on=nightly.every_night)),
            (words.SETTINGS_NIGHT, "start", time_of_day(nightly.start)),
            (words.SETTINGS_UNTIL, "stop", time_of_day(nightly.stop)),
            ("", "only_on_power", switch(words.SETTINGS_POWER, on=nightly.only_on_power)),
            ("", "only_when_idle", switch(words.SETTINGS_IDLE, on=nightly.only_when_idle)),
        )

    def _privacy(self, settings: Settings) -> QGroupBox:
        return self._group(
            words.GROUP_PRIVACY,
            ("", "automatic_send", switch(words.SETTINGS_SEND, on=settings.worker.automatic_send)),
            ("", "allow_full_model", switch(words.SETTINGS_FULL, on=settings.allow_full_model)),
            (words.SETTINGS_CLIP, "clip_norm", number(settings.clip_norm, 1e6, decimals=4)),
            (words.SETTINGS_NOISE, "noise_multiplier", number(settings.noise_multiplier, 1e6, decimals=4)),
        )

    def _limits(self, settings: Settings) -> QGroupBox:
        worker, kept = settings.worker, settings.annotations
        return self._group(
            words.GROUP_LIMITS,
            (words.SETTINGS_THREADS, "threads", count(worker.threads, 1024)),
            (words.SETTINGS_MEMORY, "memory_gib", number(worker.memory_gib, 1e5, suffix=" GiB")),
            (words.SETTINGS_JOB, "job_minutes", number(worker.job_minutes, _DAY_MIN, suffix=" min")),
            (words.SETTINGS_RUN, "max_minutes", number(settings.nightly.max_minutes, _DAY_MIN, least=1, suffix=" min")),
            (words.SETTINGS_CASES, "keep_cases", count(kept.keep_cases, 1_000_000, least=1)),
            (words.SETTINGS_DAYS, "keep_days", number(kept.keep_days, 36500, least=1, suffix=" days", decimals=0)),
            (words.SETTINGS_DISK, "keep_gib", number(kept.keep_gib, 1e5, least=0.1, suffix=" GiB")),
        )

    def _group(self, title: str, *rows: tuple[str, str, QWidget]) -> QGroupBox:
        box, form = QGroupBox(title), QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.AllNonFixedFieldsGrow)
        for label, name, field in rows:
            form.addRow(*((label, field) if label else (field,)))
            self.fields[name] = field
            if name in self._look.replaced:
                form.addRow("", QLabel(words.SETTINGS_REPLACED[self._look.replaced[name]]))
        box.setLayout(form)
        return box

    def _ask_for_the_key(self) -> None:
        """Another server needs its key, which only the person has."""
        server = self.values()["server"]
        is_other = server.rstrip("/") != self._before["server"].rstrip("/")
        lacks = bool(server) and is_other and not self.values()["api_key"] and self.fields["api_key"].isEnabled()
        self.fields["api_key"].setPlaceholderText(
            words.SETTINGS_KEY_NEEDED if lacks else words.SETTINGS_KEY_KEPT * bool(self._look.settings.api_key)
        )
        self.buttons.button(QDialogButtonBox.Save).setEnabled(not lacks)

    def _accept(self) -> None:
        now = self.values()
        changed = {
            name: value
            for name, value in now.items()
            if (value != self._before[name] or name in self._look.faulty) and self.fields[name].isEnabled()
        }
        if changed:
            self.chosen.emit(changed)
        self.accept()
