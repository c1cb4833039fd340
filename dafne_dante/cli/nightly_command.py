"""The command `nightly`: one run over all models with new annotations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.job_commands import described
from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object, say
from dafne_dante.config import load_settings

if TYPE_CHECKING:
    from dafne_dante.plugin.nightly import NightPlan
    from dafne_dante.plugin.worker_events import Event

__all__ = ["nightly"]


def nightly(
    model_type: Annotated[
        list[str] | None, typer.Option("--type", help="Also a model that was not improved here before; repeatable.")
    ] = None,
    at_once: Annotated[bool, typer.Option("--now", help="Whatever the time is and whoever uses the machine.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and do nothing.")] = False,
    configuration: Annotated[Path | None, typer.Option(help="The configuration folder.", hidden=True)] = None,
    as_json: Json = False,
) -> None:
    """Improve every model that has new annotations, within the window and the budget of the nightly settings."""
    from dafne_dante.plugin.jobs import open_jobs
    from dafne_dante.plugin.nightly import plan_night, run_night

    settings = load_settings(configuration)
    queue, also = open_jobs(settings), tuple(model_type or ())
    if dry_run:
        plan = plan_night(settings, queue, also=also, at_once=at_once)
        print_object(_planned(plan), as_json=as_json, text=lambda: "\n".join(_lines(plan)))
        return
    night = run_night(settings, queue, also=also, at_once=at_once, tell=_tell)
    jobs = [described(job) for job in night.jobs]
    lines = [f"{job['type']}: {job['state']}; {job['told']}" for job in jobs]
    early = [f"ended early: {night.ended_early}"] if night.ended_early else []
    sent = [night.sent] if night.sent else []
    print_object(
        {
            **_planned(night.plan),
            "jobs": jobs,
            "ended_early": night.ended_early,
            "improved_models": list(night.updated),
            "sent": night.sent,
        },
        as_json=as_json,
        text=lambda: "\n".join([*_lines(night.plan), *sent, *lines, *night.updated, *early]),
    )
    if any(job.state == "failed" for job in night.jobs):
        raise typer.Exit(1)


def _tell(model_type: str, event: "Event") -> None:
    if event.kind in ("stage", "fallback"):
        say(f"{model_type}: {event.values.get('words', '')}")


def _planned(plan: "NightPlan") -> dict[str, Any]:
    return {
        "refused": plan.refused,
        "until": plan.until.isoformat(timespec="seconds"),
        "catching_up": plan.catching_up,
        "chosen": [{"type": one.model_type, "why": one.why} for one in plan.chosen],
        "left": [{"type": one.model_type, "why": one.why} for one in plan.left],
    }


def _lines(plan: "NightPlan") -> list[str]:
    models = [f"{one.model_type}: {one.why}" for one in plan.chosen]
    models += [f"left {one.model_type}: {one.why}" for one in plan.left]
    first = f"nothing is done: {plan.refused}" if plan.refused else f"until {plan.until:%H:%M} at the latest"
    return [first, *(models or ["no model was improved here yet; name one with --type"])]
