"""Commands around the system's scheduler: install, show, remove."""

from typing import TYPE_CHECKING, Annotated

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object
from dafne_dante.config import load_settings

if TYPE_CHECKING:
    from dafne_dante.plugin.schedule.plan import SchedulePlan

__all__ = ["schedule"]

schedule = typer.Typer(help="Let the system run `dafne-dante nightly` every night.", no_args_is_help=True)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the files and commands, and do nothing.")]


@schedule.command()
def install(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Set the nightly run up, for the window in the nightly settings."""
    from dafne_dante.plugin.schedule import setting_up

    plan = _plan()
    told = setting_up.describe_plan(plan)
    if not dry_run:
        setting_up.install(plan, setting_up.SystemShell())
        told = f"{plan.scheduler} runs dafne-dante every night from {load_settings().nightly.start} on"
    _print(plan, told, done=not dry_run, as_json=as_json)


@schedule.command()
def show(as_json: Json = False) -> None:
    """What the scheduler knows of the nightly run; exit code 1 when there is none."""
    from dafne_dante.plugin.schedule import setting_up

    plan, shell = _plan(), setting_up.SystemShell()
    there = setting_up.is_installed(plan, shell)
    told = setting_up.show(plan, shell) if there else f"{plan.scheduler} runs nothing of dafne-dante"
    _print(plan, told, done=there, as_json=as_json)
    if not there:
        raise typer.Exit(1)


@schedule.command()
def remove(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Take the nightly run away."""
    from dafne_dante.plugin.schedule import setting_up

    plan, done = _plan(), False
    told = setting_up.describe_plan(plan, removing=True)
    if not dry_run:
        done = setting_up.remove(plan, setting_up.SystemShell())
        told = "the nightly run was taken away" if done else "there was no nightly run"
    _print(plan, told, done=done, as_json=as_json)


def _plan() -> "SchedulePlan":
    from dafne_dante.plugin.schedule.setting_up import plan_for_system

    return plan_for_system(load_settings())


def _print(plan: "SchedulePlan", told: str, *, done: bool, as_json: bool) -> None:
    answer = {"scheduler": plan.scheduler, "done": done, "told": told}
    print_object(answer, as_json=as_json, text=lambda: told)
