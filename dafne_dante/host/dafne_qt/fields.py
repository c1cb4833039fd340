"""The fields of the settings dialog, one kind for each kind of value, and what they hold.

Invariant: what a field holds is a plain value, as a settings file has it.
"""

from typing import Any

from PyQt5.QtCore import QTime
from PyQt5.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QLineEdit, QSpinBox, QTimeEdit, QWidget

from dafne_dante.host.dafne_qt import words

__all__ = ["choice", "count", "held_by", "number", "secret", "switch", "text", "time_of_day"]

_TIME = "HH:mm"
_WIDTH = 130


def held_by(field: QWidget) -> Any:
    """What a field holds."""
    if isinstance(field, QCheckBox):
        return field.isChecked()
    if isinstance(field, QComboBox):
        return field.currentData()
    if isinstance(field, QTimeEdit):
        return field.time().toString(_TIME)
    return field.text().strip() if isinstance(field, QLineEdit) else field.value()


def text(value: str) -> QLineEdit:
    """An address."""
    field = QLineEdit(value)
    field.setPlaceholderText("https://")
    return field


def secret(*, is_set: bool) -> QLineEdit:
    """A key, which is never shown; empty for the one that is set."""
    field = QLineEdit()
    field.setEchoMode(QLineEdit.Password)
    field.setPlaceholderText(words.SETTINGS_KEY_KEPT if is_set else "")
    return field


def switch(told: str, *, on: bool) -> QCheckBox:
    """On or off."""
    field = QCheckBox(told)
    field.setChecked(on)
    return field


def choice(value: str) -> QComboBox:
    """One of the methods."""
    field = QComboBox()
    for name, told in words.METHODS.items():
        field.addItem(told, name)
    field.setCurrentIndex(field.findData(value))
    return field


def count(value: int, most: int, *, least: int = 0) -> QSpinBox:
    """A whole number."""
    field = QSpinBox()
    field.setMinimumWidth(_WIDTH)
    field.setRange(least, most)
    field.setValue(value)
    return field


def number(value: float, most: float, *, least: float = 0.0, suffix: str = "", decimals: int = 1) -> QDoubleSpinBox:
    """Any number."""
    field = QDoubleSpinBox()
    field.setMinimumWidth(_WIDTH)
    field.setDecimals(decimals)
    field.setRange(least, most)
    field.setValue(value)
    field.setSuffix(suffix)
    return field


def time_of_day(value: str) -> QTimeEdit:
    """HH:MM."""
    field = QTimeEdit(QTime.fromString(value, _TIME))
    field.setDisplayFormat(_TIME)
    return field
