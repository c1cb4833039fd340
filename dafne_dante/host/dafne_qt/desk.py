"""What Dafne's windows can ask of the plugin; no Qt here.

Invariants: everything but `forget_models` may take a while and is called away from the thread that paints; what is
asked for is in the queue, on the disk, when the call returns.
"""

from collections.abc import Callable

from dafne_dante.config import Settings
from dafne_dante.host.dafne_qt.shown import (
    JobLine,
    LocalLine,
    Ready,
    job_lines,
    local_lines,
    ready_to_improve,
    status_sentence,
)
from dafne_dante.plugin.job_run import has_checkpoint
from dafne_dante.plugin.job_states import Job, JobOptions
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.local.shelf import local_shelf
from dafne_dante.plugin.stopping import stop_job

__all__ = ["Desk"]


class Desk:
    """The plugin's stores, as the windows use them.

    Attributes:
        forget_models: makes Dafne load its models anew; set by whoever knows its window.
    """

    def __init__(self, settings: Settings, queue: JobQueue) -> None:
        self.settings, self.queue = settings, queue
        self.forget_models: Callable[[], None] = lambda: None

    def ready(self, model_type: str) -> Ready:
        """See `shown.ready_to_improve`."""
        return ready_to_improve(self.settings, model_type)

    def improve(self, model_type: str, method: str, *, send: bool) -> Job:
        """Put a job of the button into the queue; SettingsError, StorageError as `JobQueue.add`."""
        return self.queue.add(model_type, "button", JobOptions(method=method, upload=send))

    def stop(self, job_id: str, *, keep: bool) -> Job:
        """Stop a job within five seconds; `keep` measures and keeps the best so far, where there is any.

        Raises:
            TrainingError: the job has ended.
        """
        return stop_job(self.queue, job_id, self.settings, keep=keep and has_checkpoint(self.queue.folder_of(job_id)))

    def activity(self) -> tuple[list[JobLine], list[LocalLine], str]:
        """Jobs, models in use, and one sentence; DanteError where something cannot be read."""
        jobs = job_lines(self.queue)
        return jobs, local_lines(self.settings), status_sentence(jobs)

    def use_global(self, model_type: str) -> None:
        """Go back to the global model; the improved ones stay. StorageError where the disk refuses."""
        local_shelf(self.settings, model_type).choose(0, "somebody went back to the global model")
        self.forget_models()
