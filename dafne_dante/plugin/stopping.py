"""Stop a job from a process that did not start it, such as the command line."""

from dafne_dante.config import Settings
from dafne_dante.errors import TrainingError
from dafne_dante.plugin.job_run import has_checkpoint
from dafne_dante.plugin.job_states import Job
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.worker_process import WorkerProcess

__all__ = ["stop_job"]

_DROP_S, _KEEP_S = 15.0, 3600.0


def stop_job(queue: JobQueue, job_id: str, settings: Settings, *, keep: bool = False) -> Job:
    """Stop a job and return it as it is then; waits until its worker is gone, with `keep` until the rest is measured.

    Raises:
        TrainingError: it has ended already; or there is nothing to keep yet, and it goes on.
        StorageError: the queue or what it made cannot be changed.
    """
    job = queue.get(job_id)
    if job.state != "running":
        return queue.ask_to_stop(job_id, "keep" if keep else "drop")
    if keep and not has_checkpoint(queue.folder_of(job_id)):
        raise TrainingError(
            "expected an epoch to keep, found nothing to keep yet: the first training has not finished an epoch; wait "
            "for it, or stop and keep nothing"
        )
    worker = WorkerProcess(queue, job_id, settings)
    worker.cancel(keep=keep)  # before it is followed, so that a worker that is gone is not replaced in vain
    worker.attach()
    worker.wait(_KEEP_S if keep else _DROP_S)
    return queue.get(job_id)
