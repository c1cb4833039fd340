"""The dialogs alone, without a screen: what they tell, what can be accepted, and that they do nothing themselves."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import pytest

from dafne_dante.config import Settings
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.shown import CaseLine, JobLine, Ready, VersionLine

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

    ready = Ready(
        "Thigh", 1, 2, ("vastus",), can_send=True, last_s=200.0, about_s=999.0, server="federation.example",
        sent_bytes={"auto": 1_200_000}, about_bytes={"auto": 9, "lora": 5_000_000},
    )  # fmt: skip
    dialog, chosen = improving(ready)
    assert "1 study kept here, 2 slices with something drawn: vastus" in texts(dialog)
    assert "about 3 minutes, as the last time" in texts(dialog)
    assert "to federation.example: one signed file of about 1.2 MB, like the last one, with" in texts(dialog)
    dialog.method.setCurrentIndex(dialog.method.findData("lora"))
    assert "one signed file of about 5 MB, by the model's size, with" in texts(dialog)
    dialog.send.setChecked(False)
    assert words.NOTHING_LEAVES in texts(dialog) and "signed file" not in texts(dialog)
    dialog.buttons.button(QDialogButtonBox.Ok).click()
    assert chosen == [("lora", False)]


@pytest.mark.parametrize(
    ("about_s", "told"), [(0.0, words.TAKES_UNKNOWN), (370.0, "about 6 minutes, by a"), (20.0, "about 1 minute, by a")]
)
def test_before_the_first_job_the_dialog_tells_what_was_measured(about_s, told):
    dialog, _ = improving(
        Ready("Thigh", 1, 2, ("vastus",), can_send=True, about_s=about_s, server="federation.example")
    )
    assert told in texts(dialog)
    assert "to federation.example: one signed file with changes" in texts(dialog)


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


def test_what_cannot_be_kept_yet_is_told_before_somebody_stops(tmp_path):
    from dafne_dante.host.dafne_qt.activity_window import ActivityWindow
    from dafne_dante.host.dafne_qt.desk import Activity, Desk
    from dafne_dante.plugin.jobs import open_jobs

    settings = replace(SETTINGS, folder=tmp_path)
    window = ActivityWindow(Desk(settings, open_jobs(settings)))
    line = JobLine("1", "Thigh", "the button", "runs", "", is_alive=True, report=None)
    for shown, keeps in ((line, False), (replace(line, can_keep=True), True)):
        window._show(Activity([shown], [], "", "", paused=False))
        window.table.selectRow(0)
        assert (window.keep.isEnabled(), window.drop.isEnabled()) == (keeps, True)
        assert (window.keep.text() == words.CANCEL_KEEP_NOTHING) is not keeps
        assert (window.keep.toolTip() == words.NOTHING_TO_KEEP) is not keeps
