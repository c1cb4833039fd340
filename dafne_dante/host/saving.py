"""What a host's save does, for any host: the studies are kept as cases, and a job is asked for and begun.

Invariants: the callback returns at once; a study is kept with or without a server, a job needs one, as the global model
comes from there; an improved model is offered to the host when its job is over and its gate passed (`hosted_jobs`).
"""

from pathlib import Path

from dafne_dante.config import load_settings
from dafne_dante.errors import AnnotationError, DanteError
from dafne_dante.host.hosted_jobs import HostedJobs
from dafne_dante.host.protocol import Host

__all__ = ["SaveHandler"]


class SaveHandler:
    """Keeps what a host saves; the jobs are looked at from the first save on."""

    def __init__(self, host: Host, jobs: HostedJobs) -> None:
        self._host, self._jobs = host, jobs

    def saved(self) -> None:
        """What the host calls after each save."""
        study, model = self._host.current_study(), self._host.current_model()
        if study is not None:
            self._host.run_in_background(lambda: self._keep(study, model.model_type if model else ""))

    def _keep(self, folder: Path, model_type: str) -> None:
        # Registering imports neither numpy nor torch; a save is soon enough.
        from dafne_dante.annotations.search import find_studies_in  # noqa: PLC0415
        from dafne_dante.host.keeping import keep_save  # noqa: PLC0415
        from dafne_dante.plugin.jobs import automatic_options, open_jobs  # noqa: PLC0415

        try:
            settings = load_settings()
            found = find_studies_in([folder])
            if not found.studies:
                raise AnnotationError("expected a labelled study in what was saved, found none")
            wanted = model_type if settings.server and settings.worker.after_save else ""
            kept = [
                keep_save(
                    study, wanted, settings, open_jobs(settings), options=automatic_options(settings), say=self._warn
                )
                for study in found.studies
            ]
            for job in {one.job.job_id: one.job for one in kept if one.job is not None}.values():
                self._jobs.begin(settings, job.job_id, model_type)
        except DanteError as error:
            self._warn(f"The annotations were not kept for learning: {error}")

    def _warn(self, told: str) -> None:
        self._host.notify(told, "warning")
