"""Commands around the jobs: list, show, cancel, pause, resume."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object
from dafne_dante.config import load_settings

if TYPE_CHECKING:
    from dafne_dante.plugin.job_states import Job
    from dafne_dante.plugin.jobs import JobQueue

__all__ = ["described", "jobs"]

jobs = typer.Typer(help="Improvements that wait, run in the background, or have ended.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="A job's id, or its first characters.")]


@jobs.command("list")
def list_jobs(
    everything: Annotated[bool, typer.Option("--all", help="Also what has ended.")] = False, as_json: Json = False
) -> None:
    """What waits and what runs; with --all everything that was ever asked for."""
    from dafne_dante.plugin.jobs import jobs_exist, open_jobs

    settings = load_settings()
    found = open_jobs(settings).jobs(finished=everything) if jobs_exist(settings) else []
    told = [described(job) for job in found]
    lines = [_line(job) for job in told] or ["no job"]
    print_object({"jobs": told}, as_json=as_json, text=lambda: "\n".join(lines))


@jobs.command()
def show(name: Name, as_json: Json = False) -> None:
    """All about one job."""
    told = described(_queue().find(name))
    print_object(told, as_json=as_json, text=lambda: "\n".join(f"{key}: {value}" for key, value in told.items()))


@jobs.command()
def cancel(
    name: Name,
    keep: Annotated[bool, typer.Option("--keep", help="Measure and keep the best so far, instead of nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Never begin a job, or stop the one that runs, within five seconds."""
    from dafne_dante.plugin.stopping import stop_job

    queue = _queue()
    job = queue.find(name)
    stopped = described(stop_job(queue, job.job_id, load_settings(), keep=keep))
    print_object(stopped, as_json=as_json, text=lambda: f"{stopped['id']}: {stopped['state']}; {stopped['told']}")


@jobs.command()
def pause(as_json: Json = False) -> None:
    """Improve nothing after a save and at night until `jobs resume`; what somebody asks for begins as ever."""
    _set_paused(paused=True, as_json=as_json)


@jobs.command()
def resume(as_json: Json = False) -> None:
    """End the pause; what waited begins when Dafne or the night looks."""
    _set_paused(paused=False, as_json=as_json)


def _set_paused(*, paused: bool, as_json: bool) -> None:
    from dafne_dante.plugin.pausing import set_paused

    set_paused(load_settings(), paused=paused)
    told = "paused: only what somebody asks for is improved" if paused else "going on"
    print_object({"paused": paused}, as_json=as_json, text=lambda: told)


def described(job: "Job") -> dict[str, Any]:
    """A job as plain values."""
    from dafne_dante.federation.audit import utc
    from dafne_dante.plugin.job_states import object_in

    return {
        "id": job.job_id,
        "type": job.model_type,
        "trigger": job.trigger,
        "state": job.state,
        "told": job.told,
        "created": utc(job.created_s),
        "changed": utc(job.changed_s),
        "not_before": utc(job.not_before_s),
        "attempts": job.attempts,
        "wish": job.wish,
        "progress": object_in(job.progress),
    }


def _line(told: dict[str, Any]) -> str:
    progress = told["progress"]
    far = f"  epoch {progress['epoch']} of {progress.get('epochs', '?')}" if "epoch" in progress else ""
    words = f"  {told['told']}" if told["told"] else ""
    return f"{told['id']}  {told['state']}  {told['type']}  {told['trigger']}{far}{words}"


def _queue() -> "JobQueue":
    from dafne_dante.errors import TrainingError
    from dafne_dante.plugin.jobs import jobs_exist, open_jobs

    settings = load_settings()
    if not jobs_exist(settings):
        raise TrainingError("expected a job, found none; dafne-dante nightly makes some, and so does Dafne")
    return open_jobs(settings)
