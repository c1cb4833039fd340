"""The jobs of a host other than Dafne: begun when they are due, and what came of them brought back to it.

Invariants: nothing is looked at before the first job; an improved model is offered when another one is to be used than
before, whatever the job was; each job that ends is told to the user once, in one sentence.
"""

from dafne_dante.config import Settings
from dafne_dante.host.protocol import Host

__all__ = ["HostedJobs"]


class HostedJobs:
    """Begins what is queued; one for each host."""

    def __init__(self, host: Host) -> None:
        self._host, self._is_begun = host, False
        self._asked: dict[str, str] = {}
        self._offered: dict[str, int] = {}

    def begin(self, settings: Settings, job_id: str, model_type: str) -> None:
        """A job was queued: look at the queue from now on; StorageError where it cannot be opened."""
        # Registering imports neither torch nor the queue; the first job is soon enough.
        from dafne_dante.host.starting_jobs import JobStarter  # noqa: PLC0415
        from dafne_dante.plugin.jobs import open_jobs  # noqa: PLC0415
        from dafne_dante.plugin.local.using import local_model  # noqa: PLC0415
        from dafne_dante.plugin.pausing import is_paused  # noqa: PLC0415
        from dafne_dante.plugin.worker_process import WorkerProcess  # noqa: PLC0415

        self._asked[job_id] = model_type
        self._offered.setdefault(model_type, local_model(settings, model_type).number)
        if not self._is_begun:
            self._is_begun = True
            queue = open_jobs(settings)
            JobStarter(
                queue,
                lambda job_id: WorkerProcess(queue, job_id, settings),
                lambda told: self._host.notify(told, "warning"),
                ended=lambda: self.look(settings),
                is_paused=lambda: is_paused(settings),
            ).start()

    def look(self, settings: Settings) -> None:
        """Tell what has ended, and offer what is to be used now; StorageError where the queue cannot be read."""
        from dafne_dante.plugin.jobs import open_jobs  # noqa: PLC0415 (see above)
        from dafne_dante.plugin.local.using import local_model  # noqa: PLC0415

        queue = open_jobs(settings)
        for job_id in list(self._asked):
            job = queue.get(job_id)
            if job.state in ("done", "failed", "cancelled"):
                del self._asked[job_id]
                self._host.notify(
                    f"{job.model_type}: {job.told}", "information" if job.state == "done" else "warning"
                )  # fmt: skip
        for model_type, number in list(self._offered.items()):
            local = local_model(settings, model_type)
            if local.file is not None and local.number != number:
                self._offered[model_type] = local.number
                self._host.model_provider.offer_model(model_type, local.file)
