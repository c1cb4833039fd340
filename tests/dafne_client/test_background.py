"""Whatever fails behind a window, the window goes on and the log names the kind of fault, without its words."""

import importlib.util
import os
import time

import pytest

from dafne_dante.config import Settings
from dafne_dante.errors import StorageError

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("PyQt5") is None, reason="Qt is not installed here")

SECRET = "Doe, Jane"


@pytest.fixture(scope="module", autouse=True)
def application():
    from PyQt5.QtWidgets import QApplication

    return QApplication.instance() or QApplication(["tests"])


@pytest.fixture
def wait(application):
    """Let Qt work until something holds."""

    def until(holds):
        end_s = time.monotonic() + 20
        while not holds() and time.monotonic() < end_s:
            application.processEvents()
            time.sleep(0.01)
        return holds()

    return until


def raising(error):
    def work():
        raise error

    return work


def test_an_answer_comes_back_and_so_does_a_fault_in_words(wait):
    from dafne_dante.host.dafne_qt.background import Background

    background, told = Background(), []
    background.run(lambda: 7, told.append, lambda fault: told.append("failed"))
    assert wait(lambda: told == [7])
    background.run(lambda: "", lambda answer: told.append(("done", answer)), told.append)
    assert wait(lambda: len(told) == 2) and told[1] == ("done", "")
    background.run(raising(StorageError("the disk is full")), lambda answer: told.append("done"), told.append)
    assert wait(lambda: len(told) == 3) and told[2] == "the disk is full"


def test_an_unforeseen_fault_comes_by_its_class_only(wait, capfd):
    from dafne_dante.host.dafne_qt.background import Background

    background, told = Background(), []
    background.run(raising(KeyError(SECRET)), lambda answer: told.append("done"), told.append)
    assert wait(lambda: bool(told))
    assert told == ["a fault of the plugin's own, KeyError; please report it"]
    log = capfd.readouterr().err
    assert "dafne-dante: a fault of the plugin's own, KeyError; please report it" in log
    assert SECRET not in log and "Traceback" not in log


def test_a_window_that_cannot_show_an_answer_does_not_end_the_program(wait, capfd):
    from dafne_dante.host.dafne_qt.background import Background

    background, told, begun = Background(), [], []

    def show(answer):
        begun.append(answer)
        raise KeyError(answer)

    background.run(lambda: SECRET, show)
    assert wait(lambda: bool(begun))
    background.run(lambda: 1, told.append)
    assert wait(lambda: told == [1])
    log = capfd.readouterr().err
    assert "KeyError" in log and SECRET not in log


def test_the_activity_window_looks_again_after_an_unforeseen_fault(wait, tmp_path):
    from dafne_dante.host.dafne_qt.activity_window import ActivityWindow
    from dafne_dante.host.dafne_qt.desk import Desk
    from dafne_dante.plugin.jobs import open_jobs

    settings = Settings(folder=tmp_path)
    desk = Desk(settings, open_jobs(settings))
    real, faults = desk.activity, [OSError("no"), KeyError(SECRET)]
    desk.activity = lambda: raising(faults.pop())() if faults else real()
    window = ActivityWindow(desk)
    assert wait(lambda: "KeyError" in window.told.text())
    assert SECRET not in window.told.text()
    window.look()
    assert wait(lambda: "OSError" in window.told.text())
    desk.queue.add("Thigh", "button")
    window.look()
    assert wait(lambda: window.table.rowCount() == 1)


def test_the_status_line_looks_again_after_an_unforeseen_fault(wait, tmp_path):
    from types import SimpleNamespace

    from PyQt5.QtWidgets import QMainWindow, QVBoxLayout

    from dafne_dante.host.dafne_qt.attaching import Attached
    from dafne_dante.host.dafne_qt.desk import Desk
    from dafne_dante.plugin.jobs import open_jobs

    settings = Settings(folder=tmp_path)
    desk = Desk(settings, open_jobs(settings))
    real, faults = desk.activity, [ZeroDivisionError()]
    desk.activity = lambda: raising(faults.pop())() if faults else real()
    toolbox = QMainWindow()
    toolbox.menuTools, toolbox.verticalLayout_11 = toolbox.menuBar().addMenu("Tools"), QVBoxLayout()
    window = SimpleNamespace(toolbox_window=toolbox, classifications=["None"], curImage=0, dl_segmenters={})
    attached = Attached(window, desk)
    assert wait(lambda: "ZeroDivisionError" in attached.status.text())
    desk.queue.add("Thigh", "button")
    assert wait(lambda: attached.status.text().startswith("Thigh: waits"))
