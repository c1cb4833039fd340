"""The hidden command `worker`, which a host or a nightly run starts for one job, or for one update of a model."""

import sys
from typing import Annotated

import typer

from dafne_dante.config import load_settings

__all__ = ["worker"]

_CODES = {"done": 0, "failed": 1, "cancelled": 4}


def worker(
    job: Annotated[str, typer.Option(help="The job's id.")] = "",
    update: Annotated[str, typer.Option(help="Carry this type's improved model over to a newer global one.")] = "",
) -> None:
    """Do one job of the queue; events go to stdout, one JSON object a line. With --update, what came of it in words."""
    if bool(job) == bool(update):
        raise typer.BadParameter("expected either --job or --update")
    if update:
        _update(update)
        return
    from dafne_dante.plugin.jobs import open_jobs
    from dafne_dante.plugin.worker import work
    from dafne_dante.plugin.worker_events import EventWriter
    from dafne_dante.plugin.worker_limits import limit_this_process

    settings = load_settings()
    queue = open_jobs(settings)
    limit_this_process(settings.worker)
    raise typer.Exit(_CODES[work(queue.find(job).job_id, settings, queue, EventWriter(sys.stdout))])


def _update(model_type: str) -> None:
    from dafne_dante.federation.client import connect
    from dafne_dante.plugin.jobs import open_jobs
    from dafne_dante.plugin.local.updating import update_here
    from dafne_dante.plugin.worker_limits import limit_this_process

    settings = load_settings()
    limit_this_process(settings.worker)
    print(update_here(model_type, settings, open_jobs(settings), connect(settings)).status)
