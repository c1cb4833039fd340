"""What cannot be done, in the real Dafne: what the plugin says, and that Dafne works on after each."""

import json
from functools import partial

from drive_steps import MODEL, correct, dialog_after, is_idle, segment

__all__ = ["faults"]


def faults(session):
    """Nothing drawn, another family, no server, a wrong key, a server that is away, a Keras model."""
    nothing_drawn(session)
    another_family(session)
    server = json.loads((session.folder / "server.json").read_text())
    for name, changes in {
        "no server": {"server": ""},
        "away": {"server": "http://127.0.0.1:9/", "api_key": "k" * 24},
        "wrong key": {"server": server["url"], "api_key": "x" * 24},
    }.items():
        session.aside(partial(session.attached._desk.change, changes))
        said_by_dialog(session, name)
    correct(session, shift=1)
    works_on(session, "wrong key")
    job_id = session.jobs()[-1].job_id
    session.wait(lambda: session.ended(job_id), 60)
    session.seen["wrong key job"] = [session.job(job_id).trigger, session.job(job_id).told]
    session.aside(partial(session.attached._desk.change, {"server": ""}))
    works_on(session, "no server")
    keras(session)


def nothing_drawn(session):
    """A save of a study on which nothing is drawn keeps nothing and asks for nothing.

    No model is chosen: with a 3D model Dafne's own save ends in a fault of Dafne's where nothing is drawn.
    """
    before = len(session.jobs())
    session.choose("None")
    said_by_dialog(session, "no model")
    works_on(session, "nothing drawn")
    session.seen["nothing drawn"] = len(session.jobs()) - before


def another_family(session):
    """The server's newest model has another family's id than the one that was improved here."""
    session.seen["segmented"] = segment(session, MODEL)
    model, _ = session.window.get_model_for_class(MODEL)
    session.seen["family"] = [str(model.model_id), session.weights(model)]


def keras(session):
    """A real Keras network: the plugin leaves it to Dafne, by the button and by a save."""
    server = json.loads((session.folder / "server.json").read_text())
    working = {"server": server["url"], "api_key": server["api_key"]}
    session.aside(partial(session.attached._desk.change, working))
    segment(session, "Keras")
    session.seen["keras"] = type(session.window.get_model_for_class("Keras")[0]).__name__
    said_by_dialog(session, "keras")
    jobs = len(session.jobs())
    works_on(session, "keras")
    session.seen["keras jobs"] = len(session.jobs()) - jobs


def said_by_dialog(session, name):
    """What the dialog of the button says is missing, and whether it can be begun."""
    from PyQt5.QtWidgets import QDialogButtonBox

    dialog = dialog_after(session, session.attached.button.click)
    enabled = dialog.buttons.button(QDialogButtonBox.Ok).isEnabled()
    session.seen[f"dialog {name}"] = [dialog._ready.missing, enabled]
    session.picture(dialog, f"dialog-{name.replace(' ', '-')}")
    dialog.reject()


def works_on(session, name):
    """Dafne saves as ever, and answers afterwards."""
    masks = session.folder / f"masks-{name.replace(' ', '-')}.npz"
    session.window.toolbox_window.masks_export.emit(str(masks), "npz", False)
    saved = session.wait(masks.is_file, 60)
    session.wait(is_idle, 60)
    session.pause(0.3)
    session.seen[f"saved {name}"] = saved
