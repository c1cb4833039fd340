"""What a person does in the sessions of the drive in which everything works, and in Dafne without the plugin."""

import json
import time

from drive_faults import faults
from drive_steps import MODEL, correct, dialog_after, is_idle, segment

__all__ = ["SESSIONS"]


def first(session):
    """Segment, correct, save, wait for the job; look around; cancel a job; leave Dafne while another runs."""
    window, seen = session.window, session.seen
    seen["classes"] = list(window.classifications[:1])
    seen["segmented"] = segment(session, MODEL)
    seen["drawn"] = correct(session)
    learn_from_a_save(session)
    use_what_was_improved(session)
    look_around(session)
    dialog = dialog_after(session, session.attached.button.click)
    session.picture(dialog, "dialog")
    seen["gap_dialog_ms"] = session.gap()
    dialog.buttons.accepted.emit()
    cancel_it(session)
    leave_while_it_runs(session)


def learn_from_a_save(session):
    """Export the masks as a person does, and wait for what comes of it by itself."""
    window, seen, attached = session.window, session.seen, session.attached
    wanted = stock_learning()
    masks = session.folder / "masks.npz"
    session.gap()
    window.toolbox_window.masks_export.emit(str(masks), "npz", False)
    session.wait(lambda: bool(session.jobs()), 30)
    seen["saved_by_dafne"] = masks.is_file() or session.wait(masks.is_file, 20)
    session.wait(is_idle, 20)
    seen["learning_setting"] = [wanted, stock_learning()]
    seen["gap_saving_ms"] = session.gap()
    job = session.jobs()[0]
    seen["trigger"] = job.trigger
    attached.show_activity()
    session.wait(lambda: '"epoch"' in session.job(job.job_id).progress, 120)
    session.pause(2)
    attached.activity.table.selectRow(0)
    session.picture(attached.activity, "activity-running")
    seen["ended"] = session.wait(lambda: session.ended(job.job_id), 240)
    seen["job"] = [session.job(job.job_id).state, session.job(job.job_id).told]
    session.wait(lambda: "improved" in attached.status.text() and "Dice" in attached.status.text(), 20)
    seen["status"] = attached.status.text()
    session.pause(1.5)
    seen["gap_job_ms"] = session.gap()
    session.picture(attached.activity, "activity")
    report = attached._desk.queue.folder_of(job.job_id) / "out" / "report.html"
    (session.folder / "pictures" / "report.html").write_bytes(report.read_bytes())
    session.picture(window.toolbox_window, "toolbox")


def stock_learning():
    from dafne.config import GlobalConfig

    return GlobalConfig["DO_INCREMENTAL_LEARNING"]


def use_what_was_improved(session):
    """The model that Dafne loads from now on, in the very session in which it was improved."""
    from dafne_dante.models.file import read_model
    from dafne_dante.plugin.local.using import local_model

    session.wait(lambda: not session.window.dl_segmenters, 10)
    with session.not_counted():
        model, name = session.window.get_model_for_class(MODEL)
        improved = read_model(local_model(session.attached._desk.settings, MODEL).file)
        session.window.setSplash(False, 1, 1, "")
        session.seen["loaded"] = [name, str(model.model_id)]
        session.seen["weight"], session.seen["improved_weight"] = session.weights(model), session.weights(improved)
    session.pause(0.2)
    session.gap()


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
    page = pages[0].read_text() if pages else ""
    (session.folder / "pictures" / "comparison.html").write_text(page)
    seen["comparison"] = len(page)
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


def cancel_it(session):
    """The job of the button, cancelled from the Activity window with nothing kept."""
    activity = session.attached.activity
    session.wait(lambda: len(session.jobs()) > 1, 20)
    job_id = session.jobs()[-1].job_id
    session.wait(lambda: session.job(job_id).state == "running", 60)
    session.wait(lambda: bool(session.job(job_id).progress), 60)
    session.wait(lambda: any(line.job_id == job_id and line.is_running for line in activity._jobs), 20)
    row = next(at for at, line in enumerate(activity._jobs) if line.job_id == job_id)
    activity.table.selectRow(row)
    begin = time.monotonic()
    activity.drop.click()
    session.wait(lambda: session.ended(job_id), 30)
    session.seen["cancelled"] = [session.job(job_id).state, round(time.monotonic() - begin, 1)]


def leave_while_it_runs(session):
    """Another job, and the question that Dafne's closing brings: nobody answers until `go on` is pressed."""
    from PyQt5.QtCore import QTimer

    from dafne_dante.plugin.job_states import JobOptions

    attached, seen = session.attached, session.seen
    with session.not_counted():
        job = attached._desk.queue.add(MODEL, "button", JobOptions(method="lora", upload=True, epochs=8))
    session.wait(lambda: '"epoch"' in session.job(job.job_id).progress, 120)
    session.wait(lambda: any(line.is_running for line in attached._jobs), 20)
    seen["left_running"] = job.job_id
    seen["gap_rest_ms"] = session.gap()
    attached.asks = True

    def answer():
        session.picture(attached.leaving, "leaving")
        seen["question"] = [attached.leaving.stops, attached.leaving.go_on.text()]
        attached.leaving.go_on.click()

    QTimer.singleShot(700, answer)


def second(session):
    """Dafne again: the job that was left running has gone on, and its update waits or was sent."""
    seen, attached = session.seen, session.attached
    session.gap()
    before = json.loads((session.folder / "first.json").read_text())["left_running"]
    seen["ended"] = session.wait(lambda: session.ended(before), 240)
    seen["job"] = [session.job(before).state, session.job(before).told]
    segment(session, MODEL)
    session.gap()
    attached.show_activity()
    session.wait(lambda: bool(attached.activity._jobs), 20)
    session.pause(1.5)
    session.picture(attached.activity, "activity-again")
    attached.activity.pages.setCurrentIndex(1)
    attached.activity.sending.sent.selectRow(0)
    session.pause(0.3)
    session.picture(attached.activity, "sending")
    seen["gap_again_ms"] = session.gap()


def plain(session):
    """Dafne by its own command: load a model into its cache, and what its settings are."""
    from dafne.config import GlobalConfig
    from dafne.config.config import CONFIG_FILE, save_config

    session.choose(MODEL)
    model, _ = session.window.get_model_for_class(MODEL)
    session.window.setSplash(False, 1, 1, "")
    session.seen["weight"] = session.weights(model)
    session.seen["settings"] = {name: repr(value) for name, value in sorted(GlobalConfig.items())}
    session.seen["config"] = str(CONFIG_FILE)
    if not (session.folder / "first.json").exists():
        save_config()  # as Dafne's own dialog of settings does


SESSIONS = {"first": first, "second": second, "faults": faults, "plain-before": plain, "plain-after": plain}
