"""The plugin's side of the seam: what `dafne_dante.register(host)` adds to a host, and what the button does.

A save is `host.saving`'s, and what becomes of a job `host.hosted_jobs`'.

Invariants: registering is quick and imports neither torch nor Qt nor numpy; the button's callback returns at once; the
button keeps what is annotated and asks for a job like any other, in the queue, in a process of its own, one for a model
at a time; it uploads nothing; one sentence tells the user how it ended, whatever happened.
"""

from pathlib import Path
from typing import Final

from dafne_dante.config import load_settings
from dafne_dante.errors import AnnotationError, DanteError, SettingsError
from dafne_dante.host.hosted_jobs import HostedJobs
from dafne_dante.host.protocol import API_VERSION, CurrentModel, Host
from dafne_dante.host.saving import SaveHandler

__all__ = ["ACTION_ID", "ACTION_LABEL", "register"]

ACTION_ID: Final = "improve-model"
ACTION_LABEL: Final = "Improve model with Dante..."


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
    jobs = HostedJobs(host)
    host.add_action(ACTION_ID, ACTION_LABEL, lambda: _start(host, jobs))
    host.subscribe("annotation-saved", SaveHandler(host, jobs).saved)


def _start(host: Host, jobs: HostedJobs) -> None:
    """Check that there is something to do, and hand it to the background."""
    model, study = host.current_model(), host.current_study()
    if model is None:
        host.notify("There is no model to improve yet; segment with one first.", "warning")
    elif study is None:
        host.notify("There is nothing to learn from yet; annotate a study first.", "warning")
    else:
        host.notify("Improving the model; you can go on working.", "information")
        host.run_in_background(lambda: _ask(host, jobs, model, study))


def _ask(host: Host, jobs: HostedJobs, model: CurrentModel, folder: Path) -> None:
    """Keep the study, and queue a job for the model: the server's newest where there is one, else the host's own."""
    # A host that never improves a model needs neither numpy nor the queue.
    from dafne_dante.annotations.search import find_studies_in  # noqa: PLC0415
    from dafne_dante.host.keeping import keep_save  # noqa: PLC0415
    from dafne_dante.plugin.job_states import JobOptions  # noqa: PLC0415
    from dafne_dante.plugin.jobs import open_jobs  # noqa: PLC0415

    try:
        settings = load_settings()
        found, queue = find_studies_in([folder]), open_jobs(settings)
        if not found.studies:
            raise AnnotationError("expected a labelled study in what is annotated, found none")
        for study in found.studies:
            keep_save(study, "", settings, queue, say=lambda told: host.notify(told, "warning"))
        base = "" if settings.server else str(model.file)
        options = JobOptions(method=settings.worker.automatic_method, base=base)
        job = queue.add(model.model_type, "button", options)
        jobs.begin(settings, job.job_id, model.model_type)
    except DanteError as error:
        host.notify(f"The model was not improved: {error}", "error")
