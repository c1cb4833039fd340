"""The plugin's side of the seam: what `dafne_dante.register(host)` adds to a host, and what the button does.

A save is `host.saving`'s.

Invariants: registering is quick and imports neither torch nor Qt nor numpy; the button's callback returns at once; one
sentence tells the user how it ended, whatever happened; the improved model is offered to the host only when it passed
its quality gate; the button uploads nothing.
"""

from pathlib import Path
from typing import Final

from dafne_dante.config import load_settings
from dafne_dante.errors import DanteError, SettingsError
from dafne_dante.host.protocol import API_VERSION, CurrentModel, Host
from dafne_dante.host.saving import SaveHandler

__all__ = ["ACTION_ID", "ACTION_LABEL", "register"]

ACTION_ID: Final = "improve-model"
ACTION_LABEL: Final = "Improve model with Dante..."
_METHOD = "lora"


def register(host: Host) -> None:
    """Add the action "Improve model with Dante..." to the host, and keep what is saved from now on.

    Raises:
        SettingsError: the host offers another version of the protocol.
    """
    if host.api_version != API_VERSION:
        raise SettingsError(
            f"expected a host with plugin API version {API_VERSION}, found {host.api_version}; "
            "install the dafne-dante that belongs to this host"
        )
    host.add_action(ACTION_ID, ACTION_LABEL, lambda: _start(host))
    host.subscribe("annotation-saved", SaveHandler(host).saved)


def _start(host: Host) -> None:
    """Check that there is something to do, and hand it to the background."""
    model, study = host.current_model(), host.current_study()
    if model is None:
        host.notify("There is no model to improve yet; segment with one first.", "warning")
    elif study is None:
        host.notify("There is nothing to learn from yet; annotate a study first.", "warning")
    else:
        host.notify("Improving the model; you can go on working.", "information")
        host.run_in_background(lambda: _improve(host, model, study))


def _improve(host: Host, model: CurrentModel, study: Path) -> None:
    # torch takes seconds to import, and a host that never improves a model never needs it.
    from dafne_dante.plugin.collecting import CaseRequest  # noqa: PLC0415
    from dafne_dante.plugin.improve import improve  # noqa: PLC0415
    from dafne_dante.plugin.improvement_request import ImprovementRequest  # noqa: PLC0415

    out = host.result_folder()
    request = ImprovementRequest(
        CaseRequest((study,)), out, base=model.file, model_type=model.model_type, method=_METHOD
    )
    try:
        summary = improve(request, load_settings())
    except DanteError as error:
        host.notify(f"The model was not improved: {error}", "error")
        return
    if summary.gate == "passed":
        host.model_provider.offer_model(model.model_type, out / "improved.model")
        host.notify(f"The model was improved: {summary.gate_reason}", "information")
    else:
        host.notify(f"The model stays as it was: {summary.gate_reason}", "warning")
