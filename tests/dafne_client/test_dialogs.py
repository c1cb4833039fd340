"""The dialogs alone, without a screen: what they tell, what can be accepted, and that they do nothing themselves."""

import importlib.util
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dafne_dante.config import Settings
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.shown import CaseLine, Ready, VersionLine

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("PyQt5") is None, reason="Qt is not installed here")

SETTINGS = Settings(folder=Path("nowhere"), server="https://federation.example/", api_key="k" * 20)


@pytest.fixture(scope="module", autouse=True)
def application():
    from PyQt5.QtWidgets import QApplication

    return QApplication.instance() or QApplication(["tests"])


def texts(dialog):
    from PyQt5.QtWidgets import QLabel

    return " ".join(label.text() for label in dialog.findChildren(QLabel))


def improving(ready):
    from dafne_dante.host.dafne_qt.improve_dialog import ImproveDialog

    dialog, chosen = ImproveDialog(ready), []
    dialog.chosen.connect(lambda method, send: chosen.append((method, send)))
    return dialog, chosen


def test_the_dialog_says_what_it_learns_from_and_what_leaves():
    from PyQt5.QtWidgets import QDialogButtonBox

    dialog, chosen = improving(Ready("Thigh", 1, 1, 2, ("vastus",), can_send=True, last_s=200.0))
    assert "1 study kept here, 2 slices with something drawn: vastus" in texts(dialog)
    assert "about 3 min" in texts(dialog) and words.SENDS in texts(dialog)
    dialog.send.setChecked(False)
    assert words.NOTHING_LEAVES in texts(dialog) and words.SENDS not in texts(dialog)
    dialog.method.setCurrentIndex(dialog.method.findData("lora"))
    dialog.buttons.button(QDialogButtonBox.Ok).click()
    assert chosen == [("lora", False)]


def test_what_is_left_out_stands_beside_what_is_used():
    left = ("1 study is left out: nothing on it is called rectus.",)
    dialog, _ = improving(Ready("Thigh", 3, 2, 9, ("vastus",), left=left))
    assert "2 of 3 studies kept here, 9 slices with something drawn: vastus" in texts(dialog)
    assert left[0] in texts(dialog)


@pytest.mark.parametrize("missing", [words.NO_SERVER, words.NOTHING_KEPT, words.NO_MODEL])
def test_what_is_missing_is_told_and_nothing_can_begin(missing):
    from PyQt5.QtWidgets import QDialogButtonBox

    dialog, chosen = improving(Ready("", missing=missing))
    assert missing in texts(dialog)
    button = dialog.buttons.button(QDialogButtonBox.Ok)
    assert not button.isEnabled()
    button.click()
    assert chosen == []


def settings_dialog(settings=SETTINGS):
    from dafne_dante.host.dafne_qt.settings_dialog import SettingsDialog

    dialog, chosen = SettingsDialog(settings), []
    dialog.chosen.connect(chosen.append)
    return dialog, chosen


def test_settings_tell_only_what_was_changed_and_never_show_the_key():
    dialog, chosen = settings_dialog()
    assert dialog.fields["api_key"].text() == "" and dialog.fields["api_key"].echoMode() == 2
    dialog.buttons.accepted.emit()
    assert chosen == [], "nothing was changed"
    dialog, chosen = settings_dialog()
    dialog.fields["after_save_s"].setValue(30)
    dialog.fields["automatic_send"].setChecked(False)
    dialog.fields["api_key"].setText("  another  ")
    dialog.buttons.accepted.emit()
    assert chosen == [{"after_save_s": 30.0, "automatic_send": False, "api_key": "another"}]


def test_settings_show_what_is_set():
    worker = replace(SETTINGS.worker, automatic_method="lora", threads=3)
    nightly = replace(SETTINGS.nightly, start="21:15", only_when_idle=False)
    values = settings_dialog(replace(SETTINGS, worker=worker, nightly=nightly))[0].values()
    assert (values["automatic_method"], values["threads"]) == ("lora", 3)
    assert (values["start"], values["stop"], values["only_when_idle"]) == ("21:15", "06:00", False)
    assert values["server"] == SETTINGS.server


def comparing(cases, versions):
    from dafne_dante.host.dafne_qt.compare_dialog import CompareDialog

    dialog, chosen = CompareDialog("Thigh", versions, cases), []
    dialog.chosen.connect(lambda *picked: chosen.append(picked))
    return dialog, chosen


VERSIONS = [VersionLine(2, "two", False), VersionLine(1, "one", True), VersionLine(0, "global", False)]


def test_the_comparison_begins_with_the_global_and_the_used_model():
    from PyQt5.QtWidgets import QDialogButtonBox

    dialog, chosen = comparing([CaseLine("a", "first"), CaseLine("b", "second")], VERSIONS)
    assert (dialog.one.currentData(), dialog.other.currentData()) == (0, 1)
    button = dialog.buttons.button(QDialogButtonBox.Ok)
    dialog.other.setCurrentIndex(2)
    assert not button.isEnabled(), "a model beside itself"
    dialog.other.setCurrentIndex(0)
    dialog.case.setCurrentIndex(1)
    button.click()
    assert chosen == [("b", 0, 2)]


@pytest.mark.parametrize(("cases", "versions"), [([], VERSIONS), ([CaseLine("a", "first")], VERSIONS[2:])])
def test_without_a_case_or_another_model_nothing_can_be_compared(cases, versions):
    from PyQt5.QtWidgets import QDialogButtonBox

    dialog, _ = comparing(cases, versions)
    assert not dialog.buttons.button(QDialogButtonBox.Ok).isEnabled()
    assert (words.COMPARE_NO_CASE in texts(dialog)) is (not cases)


def test_the_toolbox_needs_no_more_of_dafne_than_its_menu_and_its_column(tmp_path):
    """What is added is there at once; opening it asks the stores in another thread."""
    from types import SimpleNamespace

    from PyQt5.QtWidgets import QMainWindow, QVBoxLayout

    from dafne_dante.host.dafne_qt.attaching import Attached
    from dafne_dante.host.dafne_qt.desk import Desk
    from dafne_dante.plugin.jobs import open_jobs

    toolbox = QMainWindow()
    toolbox.menuTools, toolbox.verticalLayout_11 = toolbox.menuBar().addMenu("Tools"), QVBoxLayout()
    settings = replace(SETTINGS, folder=tmp_path)
    window = SimpleNamespace(toolbox_window=toolbox, classifications=["None"], curImage=0, dl_segmenters={"a": 1})
    desk = Desk(settings, open_jobs(settings))
    attached = Attached(window, desk)
    entries = [action.text() for action in toolbox.menuTools.actions() if action.text()]
    assert entries == [words.IMPROVE, words.ACTIVITY, words.SETTINGS]
    assert toolbox.verticalLayout_11.indexOf(attached.button) >= 0
    assert attached.status.text() == words.STATUS_NOTHING
    desk.forget_models()
    assert window.dl_segmenters == {}


@pytest.mark.parametrize(("button", "stops"), [("go_on", False), ("stop", True)])
def test_leaving_goes_on_or_stops_as_the_person_says(button, stops):
    from dafne_dante.host.dafne_qt.leaving_dialog import LeavingDialog

    dialog = LeavingDialog(["Thigh"])
    assert "while this is improved: Thigh." in texts(dialog)
    assert dialog.go_on.isDefault()
    getattr(dialog, button).click()
    assert dialog.stops is stops and dialog.result() == 1


def test_who_does_not_answer_goes_on():
    from PyQt5.QtWidgets import QApplication

    from dafne_dante.host.dafne_qt.leaving_dialog import LeavingDialog

    dialog = LeavingDialog(["Thigh"], patience_s=1)
    begin = time.monotonic()
    dialog.exec_()
    assert dialog.stops is False and time.monotonic() - begin < 30
    assert QApplication.activeModalWidget() is None
