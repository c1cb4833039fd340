"""The dialog of the settings that a person at Dafne needs: server and key, when, what may leave, limits.

Invariants: it writes nothing itself and tells only what was changed; a key that is set is never shown; what a value may
be is checked where settings are read, and the fault is told there.
"""

from typing import Any

from PyQt5.QtCore import Qt, QTime, pyqtSignal
from PyQt5.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFormLayout,
    QGroupBox,
    QLineEdit,
    QSpinBox,
    QTimeEdit,
    QVBoxLayout,
    QWidget,
)

from dafne_dante.config import Settings
from dafne_dante.host.dafne_qt import words

__all__ = ["SettingsDialog"]

_WIDTH = 560
_TIME = "HH:mm"


class SettingsDialog(QDialog):  # type: ignore[misc]
    """`chosen` tells the changed settings by their names; nothing when none was changed."""

    chosen = pyqtSignal(dict)

    def __init__(self, settings: Settings, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(words.SETTINGS_TITLE)
        self.setMinimumWidth(_WIDTH)
        self.setAttribute(Qt.WA_DeleteOnClose)
        worker, nightly = settings.worker, settings.nightly
        self._column = QVBoxLayout(self)
        self.fields: dict[str, QWidget] = {}
        self._group(words.GROUP_SERVER, (words.SETTINGS_SERVER, "server", _text(settings.server)),
                    (words.SETTINGS_KEY, "api_key", _secret(is_set=bool(settings.api_key))))  # fmt: skip
        self._group(
            words.GROUP_TRIGGERS,
            (words.SETTINGS_AFTER, "after_save_s", _number(worker.after_save_s, 86400, suffix=" s", decimals=0)),
            (words.SETTINGS_METHOD, "automatic_method", _choice(worker.automatic_method)),
            (words.SETTINGS_NIGHT, "start", _time(nightly.start)),
            (words.SETTINGS_UNTIL, "stop", _time(nightly.stop)),
            ("", "only_on_power", _switch(words.SETTINGS_POWER, on=nightly.only_on_power)),
            ("", "only_when_idle", _switch(words.SETTINGS_IDLE, on=nightly.only_when_idle)),
        )
        self._group(
            words.GROUP_PRIVACY,
            ("", "automatic_send", _switch(words.SETTINGS_SEND, on=worker.automatic_send)),
            ("", "allow_full_model", _switch(words.SETTINGS_FULL, on=settings.allow_full_model)),
            (words.SETTINGS_CLIP, "clip_norm", _number(settings.clip_norm, 1e6, decimals=4)),
            (words.SETTINGS_NOISE, "noise_multiplier", _number(settings.noise_multiplier, 1e6, decimals=4)),
        )
        self._group(words.GROUP_LIMITS, (words.SETTINGS_THREADS, "threads", _count(worker.threads, 1024)),
                    (words.SETTINGS_MEMORY, "memory_gib", _number(worker.memory_gib, 1e5, suffix=" GiB")))  # fmt: skip
        self._before = self.values()
        self.buttons = QDialogButtonBox(QDialogButtonBox.Save | QDialogButtonBox.Cancel)
        self.buttons.accepted.connect(self._accept)
        self.buttons.rejected.connect(self.reject)
        self._column.addWidget(self.buttons)

    def values(self) -> dict[str, Any]:
        """What the fields hold, by setting."""
        return {name: _value(field) for name, field in self.fields.items()}

    def _group(self, title: str, *rows: tuple[str, str, QWidget]) -> None:
        box, form = QGroupBox(title), QFormLayout()
        for label, name, field in rows:
            form.addRow(*((label, field) if label else (field,)))
            self.fields[name] = field
        box.setLayout(form)
        self._column.addWidget(box)

    def _accept(self) -> None:
        now = self.values()
        changed = {name: value for name, value in now.items() if value != self._before[name]}
        if changed:
            self.chosen.emit(changed)
        self.accept()


def _value(field: QWidget) -> Any:
    if isinstance(field, QCheckBox):
        return field.isChecked()
    if isinstance(field, QComboBox):
        return field.currentData()
    if isinstance(field, QTimeEdit):
        return field.time().toString(_TIME)
    return field.text().strip() if isinstance(field, QLineEdit) else field.value()


def _text(value: str) -> QLineEdit:
    field = QLineEdit(value)
    field.setPlaceholderText("https://")
    return field


def _secret(*, is_set: bool) -> QLineEdit:
    field = QLineEdit()
    field.setEchoMode(QLineEdit.Password)
    field.setPlaceholderText(words.SETTINGS_KEY_KEPT if is_set else "")
    return field


def _switch(text: str, *, on: bool) -> QCheckBox:
    field = QCheckBox(text)
    field.setChecked(on)
    return field


def _choice(value: str) -> QComboBox:
    field = QComboBox()
    for name, told in words.METHODS.items():
        field.addItem(told, name)
    field.setCurrentIndex(field.findData(value))
    return field


def _count(value: int, most: int) -> QSpinBox:
    field = QSpinBox()
    field.setMaximum(most)
    field.setValue(value)
    return field


def _number(value: float, most: float, *, suffix: str = "", decimals: int = 1) -> QDoubleSpinBox:
    field = QDoubleSpinBox()
    field.setDecimals(decimals)
    field.setMaximum(most)
    field.setValue(value)
    field.setSuffix(suffix)
    return field


def _time(value: str) -> QTimeEdit:
    field = QTimeEdit(QTime.fromString(value, _TIME))
    field.setDisplayFormat(_TIME)
    return field
