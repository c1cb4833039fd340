"""One session of the real Dafne, offscreen, driven from inside: `python drive.py FOLDER SESSION`.

What it did and saw is written to FOLDER/SESSION.json; pictures to FOLDER/pictures. Nothing of Dafne or of the plugin is
replaced, but for Dafne's question which series to open, its questions and messages (remembered, and answered with yes),
its news and its search for updates.

An event-loop probe runs every two milliseconds; what the drive itself does in that thread (pictures, looking into the
queue) is taken off. A gap counts whoever made it.
"""

import faulthandler
import gc
import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

FOLDER, SESSION = Path(sys.argv[1]), sys.argv[2]
MODEL = "Phantom"


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
        "ENABLED_MODELS": [MODEL], "USE_CLASSIFIER": False, "FIRST_START": False,
        "MODEL_PATH": str(FOLDER / "models"), "TEMP_UPLOAD_DIR": str(FOLDER / "uploads"),
    }.items():  # fmt: skip
        settings.defaults[name] = (value, "string", None)
        GlobalConfig[name] = value
    return application


class Session:
    """What a test does in the window, and what it saw."""

    def __init__(self, application):
        self.application, self.seen, self.gaps = application, {}, []
        self._last = time.perf_counter()

    def begin(self):
        from PyQt5.QtCore import QTimer

        objects = [one for one in gc.get_objects() if type(one).__name__ == "MuscleSegmentation"]
        self.window = next(one for one in objects if hasattr(one, "toolbox_window"))
        self.attached = next(one for one in gc.get_objects() if type(one).__name__ == "Attached")
        self.timer = QTimer()
        self.timer.setInterval(2)
        self.timer.timeout.connect(self._beat)
        self._last = time.perf_counter()
        self.timer.start()

    def _beat(self):
        now = time.perf_counter()
        self.gaps.append(now - self._last)
        self._last = now

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
        """The longest pause of Qt's loop since the last call, in milliseconds."""
        longest, self.gaps = max(self.gaps, default=0.0), []
        return round(1e3 * longest, 1)

    def asked(self, text):
        """Dafne's questions, answered with yes and remembered."""
        from PyQt5.QtWidgets import QMessageBox

        self.seen.setdefault("asked", []).append(text)
        return QMessageBox.Yes

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

    def jobs(self):
        with self.not_counted():
            return self.attached._desk.queue.jobs()

    def job(self, job_id):
        with self.not_counted():
            return self.attached._desk.queue.get(job_id)

    def ended(self, job_id):
        return self.job(job_id).state in ("done", "failed", "cancelled")


def reference_in(affine):
    """The structures in the axes in which Dafne shows the study."""
    import nibabel
    from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

    image = nibabel.load(FOLDER / "reference.nii.gz")
    turn = ornt_transform(io_orientation(image.affine), io_orientation(affine))
    return apply_orientation(image.get_fdata(), turn).astype(int)


def first(session):
    """Segment, correct, save, wait for the job; press the button, begin another and leave Dafne while it runs."""
    import numpy as np

    window, seen = session.window, session.seen
    seen["classes"] = list(window.classifications[:1])
    slices = window.medical_volume.volume.shape[2]
    window.classifications = [MODEL] * slices
    window.displayImage(slices // 2)
    window.toolbox_window.do_autosegment.emit(0, slices - 1)
    session.wait(lambda: bool(window.roiManager and any(window.roiManager.get_roi_names())), 120)
    session.pause(3)
    seen["segmented"] = sorted(window.roiManager.get_roi_names())
    reference = reference_in(window.medical_volume.affine)
    for value, label in enumerate(("ball", "box"), start=1):
        for place in range(4, slices - 4):
            window.roiManager.set_mask(label, place, (reference[:, :, place] == value).astype(np.uint8))
    rois = window.roiManager
    drawn = [(label, place) for label in rois.get_roi_names() for place in range(slices) if rois.contains(label, place)]
    seen["drawn"] = int(sum((rois.get_mask(*pair) > 0).sum() for pair in drawn))
    session.gap()
    window.toolbox_window.masks_export.emit(str(FOLDER / "masks.npz"), "npz", False)
    session.wait(lambda: bool(session.jobs()), 30)
    seen["saved_by_dafne"] = (FOLDER / "masks.npz").is_file() or session.wait((FOLDER / "masks.npz").is_file, 20)
    seen["gap_saving_ms"] = session.gap()
    job = session.jobs()[0]
    seen["trigger"] = job.trigger
    session.attached.show_activity()
    session.wait(lambda: session.job(job.job_id).state == "running", 60)
    session.wait(lambda: '"epoch"' in session.job(job.job_id).progress, 120)
    session.pause(2)
    session.attached.activity.table.selectRow(0)
    session.picture(session.attached.activity, "activity-running")
    seen["ended"] = session.wait(lambda: session.ended(job.job_id), 240)
    session.pause(2)
    seen["job"] = [
        session.job(job.job_id).state,
        session.job(job.job_id).told,
    ]
    seen["gap_job_ms"] = session.gap()
    session.picture(session.attached.activity, "activity")
    session.wait(lambda: bool(session.attached.status.text()) and "improved" in session.attached.status.text(), 20)
    seen["status"] = session.attached.status.text()
    session.picture(window.toolbox_window, "toolbox")
    look_around(session)
    session.attached.button.click()
    session.wait(lambda: session.attached.dialog is not None, 20)
    session.pause(0.5)
    session.picture(session.attached.dialog, "dialog")
    seen["gap_dialog_ms"] = session.gap()
    session.attached.dialog.buttons.accepted.emit()
    session.wait(lambda: len(session.jobs()) > 1, 20)
    second = session.jobs()[-1]
    session.wait(lambda: session.job(second.job_id).state == "running", 60)
    session.wait(lambda: bool(session.job(second.job_id).progress), 60)
    session.pause(2)
    row = next(at for at, line in enumerate(session.attached.activity._jobs) if line.job_id == second.job_id)
    session.attached.activity.table.selectRow(row)
    begin = time.monotonic()
    session.attached.activity.drop.click()
    session.wait(lambda: session.ended(second.job_id), 30)
    seen["cancelled"] = [session.job(second.job_id).state, round(time.monotonic() - begin, 1)]
    with session.not_counted():
        third = session.attached._desk.improve(MODEL, "lora", send=True)
    session.wait(lambda: session.job(third.job_id).state == "running", 60)
    session.wait(lambda: '"epoch"' in session.job(third.job_id).progress, 120)
    seen["left_running"] = third.job_id
    seen["gap_rest_ms"] = session.gap()


def look_around(session):
    """Compare two models, pause and go on, change a setting, and go back to the global model and forth."""
    activity, seen = session.attached.activity, session.seen
    pages = []
    activity._open_page = pages.append
    session.wait(lambda: activity.versions.count() > 1, 20)
    seen["report"] = activity.report.isEnabled()
    activity.compare.click()
    session.wait(lambda: activity.comparing is not None, 20)
    session.picture(activity.comparing, "compare")
    activity.comparing.buttons.accepted.emit()
    session.wait(lambda: bool(pages), 60)
    seen["comparison"] = pages[0].read_text() if pages else ""
    (FOLDER / "pictures" / "comparison.html").write_text(seen["comparison"])
    seen["comparison"] = len(seen["comparison"])
    for wanted in (True, False):
        activity.pause.click()
        session.wait(lambda wanted=wanted: ("paused" in activity.told.text()) == wanted, 20)
        seen.setdefault("paused", []).append(activity.told.text())
    activity.settings.click()
    session.pause(0.5)
    session.picture(activity.changing, "settings")
    activity.changing.fields["threads"].setValue(2)
    activity.changing.buttons.accepted.emit()
    session.wait(lambda: session.attached._desk.settings.worker.threads == 2, 20)
    seen["threads"] = session.attached._desk.settings.worker.threads
    activity.back.click()
    session.wait(lambda: "global model is used" in activity.models.text(), 20)
    seen["back"] = activity.models.text()
    session.wait(lambda: activity.versions.count() > 1, 20)
    activity.versions.setCurrentIndex(0)
    activity.use.click()
    session.wait(lambda: "improved here" in activity.models.text(), 20)
    seen["forth"] = activity.models.text()
    session.picture(activity, "activity-choices")
    seen["gap_looking_ms"] = session.gap()


def second(session):
    """Dafne again: the job that was left running has gone on; the model that was improved here is what Dafne loads."""
    window, seen = session.window, session.seen
    before = json.loads((FOLDER / "first.json").read_text())["left_running"]
    seen["ended"] = session.wait(lambda: session.ended(before), 240)
    job = session.job(before)
    seen["job"] = [job.state, job.told]
    window.classifications = [MODEL] * window.medical_volume.volume.shape[2]
    model, name = window.get_model_for_class(MODEL)
    seen["loaded"] = [name, str(model.model_id)]
    import torch

    seen["weight"] = float(
        sum(tensor.double().abs().sum() for tensor in model.get_weights().values() if torch.is_tensor(tensor))
    )
    from dafne_dante.models.file import read_model
    from dafne_dante.plugin.local.using import local_model

    improved = read_model(local_model(session.attached._desk.settings, MODEL).file)
    seen["improved_weight"] = float(sum(tensor.double().abs().sum() for tensor in improved.weights.values()))
    session.attached.show_activity()
    session.wait(lambda: bool(session.attached.activity._jobs), 20)
    session.picture(session.attached.activity, "activity-again")


def main():
    """Start Dafne with the plugin, as its command does, and run the session where Dafne would wait for the person."""
    faulthandler.dump_traceback_later(500)
    application = prepare()
    import matplotlib.pyplot as plt
    from dafne.bin import dafne as program
    from PyQt5.QtWidgets import QInputDialog, QMessageBox

    QInputDialog.getItem = staticmethod(lambda *arguments, **options: (arguments[3][0], True))
    QMessageBox.exec_ = lambda box: QMessageBox.Ok
    QMessageBox.question = staticmethod(lambda parent, title, text, *rest: session.asked(text))
    session = Session(application)

    def show():
        session.begin()
        try:
            {"first": first, "second": second}[SESSION](session)
        except Exception as error:  # told, so that the test can say where it ended
            session.seen["error"] = f"{type(error).__name__}: {error}"
            import traceback

            traceback.print_exc()
        (FOLDER / f"{SESSION}.json").write_text(json.dumps(session.seen, indent=1))
        os._exit(0)

    plt.show = show
    program.plt.show = show
    from dafne_dante.host.dafne_qt.start import start_dafne

    start_dafne([str(FOLDER / "study.nii.gz")])


if __name__ == "__main__":
    main()
