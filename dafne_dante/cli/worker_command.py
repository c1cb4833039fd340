"""The hidden command `worker`, which a host or a nightly run starts for one job."""

import sys
from typing import Annotated

import typer

from dafne_dante.config import load_settings

__all__ = ["worker"]

_CODES = {"done": 0, "failed": 1, "cancelled": 4}


def worker(job: Annotated[str, typer.Option(help="The job's id.")]) -> None:
    """Do one job of the queue; events go to stdout, one JSON object a line."""
    from dafne_dante.plugin.jobs import open_jobs
    from dafne_dante.plugin.worker import work
    from dafne_dante.plugin.worker_events import EventWriter
    from dafne_dante.plugin.worker_limits import limit_this_process

    settings = load_settings()
    queue = open_jobs(settings)
    limit_this_process(settings.worker)
    raise typer.Exit(_CODES[work(queue.find(job).job_id, settings, queue, EventWriter(sys.stdout))])
