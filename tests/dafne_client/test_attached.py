"""What the plugin adds to Dafne's toolbox: entries, status, notices, and the question at the end, without a screen."""

import importlib.util
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import until

from dafne_dante.config import Settings
from dafne_dante.host.dafne_qt import words

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("PyQt5") is None, reason="Qt is not installed here")

SETTINGS = Settings(folder=Path("nowhere"), server="https://federation.example/", api_key="k" * 20)


@pytest.fixture(scope="module", autouse=True)
def application():
    from PyQt5.QtWidgets import QApplication

    return QApplication.instance() or QApplication(["tests"])


def toolbox_of(tmp_path, settings=None):
    """The plugin in a window that has no more of Dafne than its menu and its column."""
    from types import SimpleNamespace

    from PyQt5.QtWidgets import QMainWindow, QVBoxLayout

    from dafne_dante.host.dafne_qt.attaching import Attached
    from dafne_dante.host.dafne_qt.desk import Desk
    from dafne_dante.plugin.jobs import open_jobs

    toolbox = QMainWindow()
    toolbox.menuTools, toolbox.verticalLayout_11 = toolbox.menuBar().addMenu("Tools"), QVBoxLayout()
    window = SimpleNamespace(toolbox_window=toolbox, classifications=["None"], curImage=0, dl_segmenters={"a": 1})
    settings = settings or replace(SETTINGS, folder=tmp_path)
    desk = Desk(settings, open_jobs(settings))
    return Attached(window, desk), toolbox, window, desk


def test_the_toolbox_needs_no_more_of_dafne_than_its_menu_and_its_column(tmp_path):
    """What is added is there at once; opening it asks the stores in another thread."""
    attached, toolbox, window, desk = toolbox_of(tmp_path)
    entries = [action.text() for action in toolbox.menuTools.actions() if action.text()]
    assert entries == [words.IMPROVE, words.ACTIVITY, words.SETTINGS]
    assert toolbox.verticalLayout_11.indexOf(attached.button) >= 0
    assert attached.status.text() == words.STATUS_NOTHING
    desk.forget_models()
    assert window.dl_segmenters == {}


def test_the_end_of_a_job_is_told_without_taking_the_focus_and_the_notice_goes_by_itself(tmp_path, application):
    from PyQt5.QtWidgets import QLineEdit

    from dafne_dante.host.dafne_qt.desk import Activity
    from dafne_dante.host.dafne_qt.job_lines import JobLine

    attached, toolbox, _, _ = toolbox_of(tmp_path)
    field = QLineEdit()
    toolbox.setCentralWidget(field)
    toolbox.show()
    toolbox.activateWindow()
    field.setFocus()
    application.processEvents()
    active, focused = application.activeWindow(), application.focusWidget()
    assert focused is field
    running = JobLine("1", "Thigh", "the button", "runs", "", True, None, True)
    attached._show_activity(Activity([running], [], "", "", False))
    assert not attached.notice.isVisible(), "nothing has ended"
    done = replace(running, state="done", told="Dice 0.8 -> 0.9", is_alive=False, is_running=False)
    attached.notice._timer.setInterval(50)
    attached._show_activity(Activity([done], [], "", "", False))
    application.processEvents()
    assert attached.notice.isVisible() and attached.notice.text() == "Thigh: done. Dice 0.8 -> 0.9"
    assert toolbox.rect().contains(attached.notice.geometry())
    assert application.activeWindow() is active and application.focusWidget() is focused
    until_s = time.monotonic() + 10
    while attached.notice.isVisible() and time.monotonic() < until_s:
        application.processEvents()
    assert not attached.notice.isVisible()
    attached._show_activity(Activity([done], [], "", "", False))
    assert not attached.notice.isVisible(), "once for each job"
    toolbox.close()


def test_names_that_were_given_labels_are_in_the_settings_and_the_dialog_looks_again(
    tmp_path, application, monkeypatch
):
    monkeypatch.setenv("DAFNE_DANTE_SITE_CONFIG", str(tmp_path / "nothing"))
    attached, toolbox, _, desk = toolbox_of(tmp_path)
    attached._name_labels({"ball": "balls"})
    until(application, lambda: attached.dialog is not None)
    assert desk.settings.annotations.labels == {"balls": ("ball",)}
    attached.dialog.reject()
    toolbox.close()


@pytest.mark.parametrize(("asks", "answer", "left"), [(False, None, []), (True, "go_on", []), (True, "stop", ["1"])])
def test_closing_asks_about_what_runs_where_somebody_is_there(tmp_path, application, asks, answer, left):
    from PyQt5.QtCore import QTimer

    from dafne_dante.host.dafne_qt.desk import Activity
    from dafne_dante.host.dafne_qt.job_lines import JobLine

    attached, toolbox, _, desk = toolbox_of(tmp_path)
    stopped = []
    desk.leave = stopped.extend
    attached.leave()
    assert attached.leaving is None, "nothing runs"
    running = JobLine("1", "Thigh", "the button", "runs", "", True, None, True)
    waits = replace(running, job_id="2", is_running=False)
    attached._show_activity(Activity([running, waits], [], "", "", False))
    assert attached.asks is False, "nobody looks at this screen"
    attached.asks = asks
    QTimer.singleShot(50, lambda: answer and getattr(attached.leaving, answer).click())
    attached.leave()
    until(application, lambda: stopped == left)
    assert (attached.leaving is not None) is asks
    toolbox.close()
