"""The dialogs alone, without a screen: what they tell, what can be accepted, and that they do nothing themselves."""

import importlib.util
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import until

from dafne_dante.annotations.suggestions import Suggestion
from dafne_dante.config import Settings, SettingsLook, load_settings
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.job_lines import JobLine
from dafne_dante.host.dafne_qt.kept import CaseLine
from dafne_dante.host.dafne_qt.model_lines import VersionLine
from dafne_dante.host.dafne_qt.readiness import Ready

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
        "Thigh", 1, 1, 2, ("vastus",), can_send=True, last_s=200.0, about_s=999.0, server="federation.example",
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


def test_what_is_left_out_stands_beside_what_is_used():
    left = ("1 study is left out: nothing on it is called rectus.",)
    dialog, _ = improving(Ready("Thigh", 3, 2, 9, ("vastus",), left=left))
    assert "2 of 3 studies kept here, 9 slices with something drawn: vastus" in texts(dialog)
    assert left[0] in texts(dialog)


@pytest.mark.parametrize(
    ("about_s", "told"), [(0.0, words.TAKES_UNKNOWN), (370.0, "about 6 minutes, by a"), (20.0, "about 1 minute, by a")]
)
def test_before_the_first_job_the_dialog_tells_what_was_measured(about_s, told):
    dialog, _ = improving(
        Ready("Thigh", 1, 1, 2, ("vastus",), can_send=True, about_s=about_s, server="federation.example")
    )
    assert told in texts(dialog)
    assert "to federation.example: one signed file with changes" in texts(dialog)


@pytest.mark.parametrize("missing", [words.NO_SERVER, words.NOTHING_KEPT, words.NO_MODEL])
def test_what_is_missing_is_told_and_nothing_can_begin(missing):
    from PyQt5.QtWidgets import QDialogButtonBox

    dialog, chosen = improving(Ready("", missing=missing))
    assert missing in texts(dialog) and words.NOTHING_LEAVES not in texts(dialog)
    assert dialog.method.parent() is None, "nothing is asked about what cannot begin"
    button = dialog.buttons.button(QDialogButtonBox.Ok)
    assert not button.isEnabled()
    button.click()
    assert chosen == []


def settings_dialog(settings=SETTINGS, **look):
    from dafne_dante.host.dafne_qt.settings_dialog import SettingsDialog

    dialog, chosen = SettingsDialog(SettingsLook(settings, **look)), []
    dialog.chosen.connect(chosen.append)
    return dialog, chosen


def can_save(dialog):
    from PyQt5.QtWidgets import QDialogButtonBox

    return dialog.buttons.button(QDialogButtonBox.Save).isEnabled()


def test_what_the_hospital_or_the_environment_decides_is_shown_and_cannot_be_changed():
    dialog, chosen = settings_dialog(replaced={"threads": "environment", "start": "site", "timeout_s": "site"})
    assert not dialog.fields["threads"].isEnabled() and not dialog.fields["start"].isEnabled()
    assert dialog.fields["memory_gib"].isEnabled()
    assert words.SETTINGS_REPLACED["environment"] in texts(dialog) and words.SETTINGS_REPLACED["site"] in texts(dialog)
    dialog.fields["threads"].setValue(7)
    dialog.fields["keep_cases"].setValue(9)
    dialog.buttons.accepted.emit()
    assert chosen == [{"keep_cases": 9}]


def test_another_server_is_not_taken_without_its_key():
    dialog, chosen = settings_dialog()
    dialog.fields["server"].setText("https://other.example/")
    assert not can_save(dialog)
    assert dialog.fields["api_key"].placeholderText() == words.SETTINGS_KEY_NEEDED
    dialog.fields["server"].setText(SETTINGS.server.rstrip("/"))
    assert can_save(dialog), "the same server"
    dialog.fields["server"].setText("")
    assert can_save(dialog), "no server needs no key"
    dialog.fields["server"].setText("https://other.example/")
    dialog.fields["api_key"].setText("n" * 24)
    assert can_save(dialog)
    dialog.buttons.accepted.emit()
    assert chosen == [{"server": "https://other.example/", "api_key": "n" * 24}]


def test_what_is_faulty_is_said_and_written_anew():
    dialog, chosen = settings_dialog(faults=("threads must be a whole number from 0 to 1024",), faulty=("threads",))
    assert "threads must be a whole number" in texts(dialog)
    dialog.buttons.accepted.emit()
    assert chosen == [{"threads": 0}]


@pytest.mark.parametrize("name", ["after_save", "every_night"])
def test_each_trigger_has_its_switch(name):
    dialog, chosen = settings_dialog()
    assert dialog.fields[name].isChecked()
    dialog.fields[name].click()
    dialog.buttons.accepted.emit()
    assert chosen == [{name: False}]


def test_names_that_the_model_does_not_know_can_be_given_their_labels():
    unknown = (
        Suggestion("vast lat", ("vastus lateralis",), True),
        Suggestion("rectus", ("rectus femoris", "rectus abdominis"), False),
        Suggestion("liver", (), False),
    )
    dialog, _ = improving(Ready("Thigh", 1, suggestions=unknown, missing="1 more study is needed"))
    named = []
    dialog.named.connect(named.append)
    assert words.UNKNOWN_NONE.format(name="liver") in texts(dialog)
    assert dialog.names["rectus"].currentData() == "", "not clear, so nothing is chosen"
    dialog.use_names.click()
    assert named == [{"vast lat": "vastus lateralis"}]


def test_with_faulty_settings_dafne_has_the_entry_that_mends_them(tmp_path, application, monkeypatch):
    from PyQt5.QtWidgets import QMainWindow

    from dafne_dante.host.dafne_qt.repair_entry import RepairEntry

    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(tmp_path))
    monkeypatch.setenv("DAFNE_DANTE_SITE_CONFIG", str(tmp_path / "nothing"))
    (tmp_path / "settings.toml").write_text("[worker]\nthreads = -4\nmemory_gib = 3.0\n")
    toolbox = QMainWindow()
    toolbox.menuTools = toolbox.menuBar().addMenu("Tools")
    toolbox.show()
    entry = RepairEntry(toolbox, "threads must be a whole number from 0 to 1024")
    assert entry.notice.isVisible() and "threads must be" in entry.notice.text()
    assert [action.text() for action in toolbox.menuTools.actions() if action.text()] == [words.SETTINGS]
    entry.action.trigger()
    until(application, lambda: entry.dialog is not None)
    assert "threads must be" in texts(entry.dialog) and entry.dialog.values()["memory_gib"] == 3.0
    entry.dialog.buttons.accepted.emit()
    until(application, lambda: entry.notice.text().startswith(words.SETTINGS_MENDED))
    settings = load_settings(tmp_path)
    assert (settings.worker.threads, settings.worker.memory_gib) == (0, 3.0)
    toolbox.close()


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


def sending_page():
    from dafne_dante.host.dafne_qt.sending_lines import SentLine, WaitingLine
    from dafne_dante.host.dafne_qt.sending_page import SendingPage

    opened = []
    page = SendingPage(opened.append)
    waiting = [WaitingLine("Thigh", "1 kB", "the server cannot be reached", "12:00", Path("one.html"))]
    sent = [
        SentLine("11:00", "https://federation.example/", "Leg", "2 kB", "a" * 64, "arrived"),
        SentLine("10:00", "https://federation.example/", "Thigh", "3 kB", "b" * 64, "refused", Path("two.html")),
    ]
    page.show_lines("1 update waits", waiting, sent)
    return page, opened


def test_what_waits_and_what_was_sent_stand_line_by_line_with_their_reports():
    page, opened = sending_page()
    shown = [page.sent.item(0, column).text() for column in range(page.sent.columnCount())]
    assert shown == ["11:00", "https://federation.example/", "Leg", "2 kB", "arrived", "a" * 64]
    assert page.waiting.item(0, 3).text() == "the server cannot be reached"
    assert not any(button.isEnabled() for button in page.buttons.values()), "no line is chosen"
    page.sent.selectRow(0)
    assert not page.buttons[page.sent].isEnabled(), "its job left no report"
    page.sent.selectRow(1)
    page.buttons[page.sent].click()
    page.waiting.selectRow(0)
    page.buttons[page.waiting].click()
    assert opened == [Path("two.html"), Path("one.html")]


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
