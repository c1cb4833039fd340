"""One session of the real Dafne, offscreen, driven from inside: `python drive.py FOLDER SESSION`.

What it did and saw is written to FOLDER/SESSION.json; pictures to FOLDER/pictures. Nothing of Dafne or of the plugin is
replaced, but for Dafne's question which series to open, its questions and messages (remembered; questions are answered
with no), its news and its search for updates. Dafne is closed as a person closes it, by its entry Quit, and the process
then ends by itself.

Two probes. `meter.Meter` times every call into the plugin in the thread that paints, from before Dafne is imported to
its end. An event-loop probe runs every five milliseconds while only the plugin has something to do; a gap counts
whoever made it. What the drive itself does in that thread (pictures, looking into the queue), and time that the process
waits for a processor that others have, is taken off both; the loop's pauses are written down with it as well.
"""

import faulthandler
import gc
import json
import os
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

from drive_sessions import SESSIONS
from meter import Meter, waited_s

STALL_S = float(os.environ.get("DAFNE_DRIVE_STALL_S", "0"))
MODELS = ("Phantom", "Keras")
FOLDER, SESSION = Path(sys.argv[1]), sys.argv[2]


def prepare():
    """Dafne as it is to start, before anything of it is imported."""
    import keyring
    import keyring.backends.null

    keyring.set_keyring(keyring.backends.null.Keyring())
    from PyQt5.QtWidgets import QApplication

    application = QApplication(["dafne"])
    import dafne.config.config as settings
    from dafne.config import GlobalConfig

    settings.static_config["REDIRECT_OUTPUT"] = False
    settings.defaults["CHECK_UPDATES"] = (False, "bool", "")
    settings.defaults["NEWS_URL"] = ("http://127.0.0.1:9/", "string", None)
    server = json.loads((FOLDER / "server.json").read_text())
    for name, value in {
        "MODEL_PROVIDER": "Remote", "SERVER_URL": server["url"], "API_KEY": server["api_key"],
        "ENABLED_MODELS": list(MODELS), "USE_CLASSIFIER": False, "FIRST_START": False,
    }.items():  # fmt: skip
        settings.defaults[name] = (value, "string", None)
        GlobalConfig[name] = value
    return application


class Session:
    """What a test does in the window, and what it saw."""

    def __init__(self, application):
        self.application, self.seen, self.gaps = application, {}, []
        self.folder, self.attached = FOLDER, None
        self._last, self._waited = time.perf_counter(), waited_s()

    def begin(self):
        from PyQt5.QtCore import QTimer

        objects = [one for one in gc.get_objects() if type(one).__name__ == "MuscleSegmentation"]
        self.window = next(one for one in objects if hasattr(one, "toolbox_window"))
        self.attached = next((one for one in gc.get_objects() if type(one).__name__ == "Attached"), None)
        self.timer = QTimer()
        self.timer.setInterval(5)
        self.timer.timeout.connect(self._beat)
        self._last, self._waited = time.perf_counter(), waited_s()
        self.timer.start()

    def _beat(self):
        now, waited = time.perf_counter(), waited_s()
        raw = now - self._last
        # A thread that has ended takes its waiting with it.
        self.gaps.append((max(0.0, raw - max(0.0, waited - self._waited)), raw))
        self._last, self._waited = time.perf_counter(), waited
        if STALL_S:  # who holds the thread up: every thread's stack, in the log
            faulthandler.dump_traceback_later(STALL_S)

    def wait(self, done, seconds):
        """Let Qt work until `done()`, which is asked 20 times a second; False when that takes longer."""
        begin = asked = time.monotonic()
        while time.monotonic() < begin + seconds:
            self.application.processEvents()
            if time.monotonic() > asked + 0.05:
                asked = time.monotonic()
                if done():
                    return True
            time.sleep(0.001)
        print("drive: not within", seconds, "s, line", sys._getframe(1).f_lineno, flush=True)
        return False

    def pause(self, seconds):
        """Let Qt work."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.application.processEvents()
            time.sleep(0.001)

    def gap(self):
        """The longest pause of Qt's loop since the last call, in milliseconds: without and with others' share."""
        longest = [round(1e3 * max((gap[one] for gap in self.gaps), default=0.0), 1) for one in (0, 1)]
        self.gaps = []
        return longest

    def asked(self, text):
        """Dafne's questions, answered with no and remembered."""
        from PyQt5.QtWidgets import QMessageBox

        self.seen.setdefault("asked", []).append(text)
        return QMessageBox.No

    def said(self, text):
        """Dafne's messages, remembered."""
        self.seen.setdefault("said", []).append(text)

    def picture(self, widget, name):
        (FOLDER / "pictures").mkdir(exist_ok=True)
        with self.not_counted():
            widget.grab().save(str(FOLDER / "pictures" / f"{name}.png"))

    @contextmanager
    def not_counted(self):
        """What the drive itself does in the thread that paints."""
        begin = time.perf_counter()
        yield
        self._last += time.perf_counter() - begin

    def aside(self, work):
        """Do something that the plugin's windows do in another thread, in another thread."""
        thread = threading.Thread(target=work)
        thread.start()
        self.wait(lambda: not thread.is_alive(), 30)

    def jobs(self):
        with self.not_counted():
            return self.attached._desk.queue.jobs()

    def job(self, job_id):
        with self.not_counted():
            return self.attached._desk.queue.get(job_id)

    def ended(self, job_id):
        return self.job(job_id).state in ("done", "failed", "cancelled")

    def weights(self, model):
        """The sum of all weights of a model of Dafne's or of ours."""
        import torch

        found = model.get_weights() if hasattr(model, "get_weights") else model.weights
        return float(sum(tensor.double().abs().sum() for tensor in found.values() if torch.is_tensor(tensor)))

    def choose(self, name):
        """The model for every slice, as the person's choice in the toolbox does."""
        slices = self.window.medical_volume.volume.shape[2]
        self.window.classifications = [name] * slices
        self.window.displayImage(slices // 2)


def main():
    """Start Dafne as its command or the plugin's does, and run the session where Dafne would wait for the person."""
    faulthandler.dump_traceback_later(500)
    application = prepare()
    meter = Meter()
    if not SESSION.startswith("plain"):
        meter.watch()
    import matplotlib.pyplot as plt
    from dafne.bin import dafne as program
    from PyQt5.QtWidgets import QInputDialog, QMessageBox

    session = Session(application)
    QInputDialog.getItem = staticmethod(lambda *arguments, **options: (arguments[3][0], True))
    QMessageBox.exec_ = lambda box: session.said(box.text()) or QMessageBox.Ok
    for kind in ("warning", "critical", "information"):
        setattr(
            QMessageBox, kind, staticmethod(lambda parent, title, text, *rest: session.said(text) or QMessageBox.Ok)
        )
    QMessageBox.question = staticmethod(lambda parent, title, text, *rest: session.asked(text))

    def show():
        session.begin()
        try:
            SESSIONS[SESSION](session)
        except Exception as error:  # told, so that the test can say where it ended
            session.seen["error"] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        session.timer.stop()
        session.window.toolbox_window.quit.emit()

    plt.show = show
    program.plt.show = show
    arguments = [str(FOLDER / "study.nii.gz")]
    if SESSION.startswith("plain"):
        sys.argv = ["dafne", *arguments]
        program.main()
        session.seen["plugin"] = sorted(name for name in sys.modules if name.startswith("dafne_dante"))
    else:
        from dafne_dante.host.dafne_qt.start import start_dafne

        start_dafne(arguments)
    session.seen["held"] = meter.longest()
    session.seen["calls"] = len(meter.calls)
    (FOLDER / f"{SESSION}.json").write_text(json.dumps(session.seen, indent=1))


if __name__ == "__main__":
    main()
