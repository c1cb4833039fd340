"""The command of a federation's operator: merge what the sites sent, once or for ever."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object
from dafne_dante.cli.publish_commands import Folder, IntendedUse, Licence, Server, Type, depot_of
from dafne_dante.config import Settings, load_settings

if TYPE_CHECKING:
    from dafne_dante.annotations.case import Case
    from dafne_dante.federation.depot import Depot
    from dafne_dante.federation.operator import MergeOptions

__all__ = ["merge"]


def merge(
    model_type: Type,
    validation: Annotated[Path, typer.Option(help="The operator's own labelled cases.")],
    server: Server = None,
    folder: Folder = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on for ever; SIGTERM or Ctrl-C ends it.")] = False,
    every: Annotated[float, typer.Option(min=1.0, max=86400.0, help="Seconds between two looks of --watch.")] = 60.0,
    full_models: Annotated[
        bool, typer.Option(help="Whether models of stock clients, which nobody signed, are merged.")
    ] = True,
    intended_use: IntendedUse = "",
    licence: Licence = "",
    as_json: Json = False,
) -> None:
    """Verify what waits, merge it, try it on the operator's cases; publish the result or quarantine with the reason."""
    from dafne_dante.annotations.folders import read_cases
    from dafne_dante.federation.aggregator import OperatorMerge
    from dafne_dante.federation.operator import MergeOptions
    from dafne_dante.federation.publishing import Statement

    settings = load_settings()
    depot = depot_of(settings, server, folder, model_type)
    options = MergeOptions(Statement(intended_use, licence), take_full_models=full_models)
    cases = read_cases(validation)
    if watch:
        _watch(depot, model_type, cases, settings, options=options, every_s=every, as_json=as_json)
        return
    report = OperatorMerge(model_type, cases, settings, options)(depot)
    print_object(report.as_json(), as_json=as_json, text=lambda: _told(report.as_json()))


def _watch(
    depot: "Depot",
    model_type: str,
    cases: "Sequence[Case]",
    settings: Settings,
    *,
    options: "MergeOptions",
    every_s: float,
    as_json: bool,
) -> None:
    from dafne_dante.federation.watching import Stop, watch_queue

    def tell(event: Mapping[str, Any]) -> None:
        typer.echo(json.dumps(event, sort_keys=True) if as_json else _event(event))

    stop = Stop()
    with stop.on_signals():
        watch_queue(depot, model_type, cases, settings, options=options, every_s=every_s, stop=stop, tell=tell)


def _event(event: Mapping[str, Any]) -> str:
    if event["event"] == "merged":
        return f"{event['at']} " + _told(event).replace("\n", "; ")
    return f"{event['at']} {event['event']}" + (f": {event['reason']}" if "reason" in event else "")


def _told(report: Mapping[str, Any]) -> str:
    head = f"published {report['version']}: {report['merged']} update(s), step {report['step']:g}"
    lines = [head if report["version"] else "nothing was published", report["reason"]]
    lines += [one["reason"] for one in report["withdrawn"]]
    lines += [f"quarantined {one['upload']}: {one['reason']}" for one in report["quarantined"]]
    return "\n".join(lines + [f"left in the queue {one['upload']}: {one['reason']}" for one in report["skipped"]])
