"""What a host's save does, for any host: the studies are kept as cases, and a job is asked for and begun.

Invariants: the callback returns at once; a study is kept with or without a server, a job needs one, as the global model
comes from there; an improved model is offered to the host when its job is over and its gate passed.
"""

from pathlib import Path

from dafne_dante.config import Settings, load_settings
from dafne_dante.errors import AnnotationError, DanteError
from dafne_dante.host.protocol import Host

__all__ = ["SaveHandler"]


class SaveHandler:
    """Keeps what a host saves; the jobs are looked at from the first save on."""

    def __init__(self, host: Host) -> None:
        self._host, self._begun = host, False
        self._model_types: set[str] = set()

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
            if any(one.job for one in kept):
                self._model_types.add(model_type)
                self._begin(settings)
        except DanteError as error:
            self._warn(f"The annotations were not kept for learning: {error}")

    def _begin(self, settings: Settings) -> None:
        from dafne_dante.host.starting_jobs import JobStarter  # noqa: PLC0415 (see above)
        from dafne_dante.plugin.jobs import open_jobs  # noqa: PLC0415
        from dafne_dante.plugin.pausing import is_paused  # noqa: PLC0415
        from dafne_dante.plugin.worker_process import WorkerProcess  # noqa: PLC0415

        if not self._begun:
            self._begun = True
            queue = open_jobs(settings)
            JobStarter(
                queue,
                lambda job_id: WorkerProcess(queue, job_id, settings),
                self._warn,
                ended=lambda: self._offer(settings),
                is_paused=lambda: is_paused(settings),
            ).start()

    def _offer(self, settings: Settings) -> None:
        from dafne_dante.plugin.local.using import local_model  # noqa: PLC0415 (see above)

        for model_type in sorted(self._model_types):
            improved = local_model(settings, model_type).file
            if improved is not None:
                self._host.model_provider.offer_model(model_type, improved)

    def _warn(self, told: str) -> None:
        self._host.notify(told, "warning")
