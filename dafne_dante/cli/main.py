"""The application: which command does what; `main` is the console script."""

import os
from typing import Annotated

import typer

from dafne_dante._version import __version__
from dafne_dante.cli import (
    audit_commands,
    bundle_commands,
    case_commands,
    federation_commands,
    job_commands,
    key_commands,
    label_commands,
    local_commands,
    model_commands,
    outbox_commands,
    publish_commands,
    schedule_commands,
    server_commands,
)
from dafne_dante.cli.benchmark_command import benchmark
from dafne_dante.cli.dafne_command import dafne
from dafne_dante.cli.demo_command import demo
from dafne_dante.cli.doctor_command import doctor
from dafne_dante.cli.init_command import init, replaced_settings
from dafne_dante.cli.measure_command import measure_step
from dafne_dante.cli.nightly_command import nightly
from dafne_dante.cli.output import run_guarded
from dafne_dante.cli.plan_command import plan
from dafne_dante.cli.train_command import train
from dafne_dante.cli.withdraw_command import withdraw
from dafne_dante.cli.worker_command import worker
from dafne_dante.errors import SettingsError

__all__ = ["application", "main"]

application = typer.Typer(
    name="dafne-dante",
    help="Improve a shared Dafne segmentation model from your own corrections; only a small signed delta leaves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    init,
    doctor,
    plan,
    train,
    model_commands.improve,
    model_commands.predict,
    model_commands.evaluate,
    model_commands.inspect,
    model_commands.apply,
    model_commands.relabel,
    federation_commands.merge,
    server_commands.serve,
    withdraw,
    nightly,
    demo,
    benchmark,
):
    application.command()(command)
application.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)(
    dafne
)
application.command(hidden=True)(worker)
application.command(hidden=True)(measure_step)
application.add_typer(case_commands.cases, name="cases")
application.add_typer(key_commands.keys, name="keys")
application.add_typer(label_commands.labels, name="labels")
application.add_typer(local_commands.local, name="local")
application.add_typer(job_commands.jobs, name="jobs")
application.add_typer(outbox_commands.outbox, name="outbox")
application.add_typer(publish_commands.publish, name="publish")
application.add_typer(schedule_commands.schedule, name="schedule")
application.add_typer(audit_commands.audit, name="audit")
application.add_typer(server_commands.server, name="server")
application.add_typer(bundle_commands.bundle, name="bundle")


def _show(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dafne-dante {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; exit codes 0 done, 1 refused or failed, 2 usage."""
    run_guarded(application)


@application.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_show)
    ] = False,
    replaced: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Replace a setting, this once; repeatable.")
    ] = None,
) -> None:
    """Improve a shared Dafne segmentation model from your own corrections; only a small signed delta leaves."""
    context.with_resource(replaced_settings(replaced or ()))
    command = context.invoked_subcommand
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1" and command != "train":
        raise SettingsError(
            f"expected the command train in several processes, found {command}; start it without torchrun"
        )
