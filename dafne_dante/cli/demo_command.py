"""The demo command."""

from pathlib import Path
from typing import Annotated

import typer

from dafne_dante.cli.output import errors_console, print_object

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo-output"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")
    ] = False,
) -> None:
    """One server and three hospitals on this machine: train, publish, improve twice, merge, show what it brought."""
    from dafne_dante.demo.federation import run_demo
    from dafne_dante.demo.table import demo_table

    outcome = run_demo(out, tell=lambda text: errors_console.print(text, markup=False))
    print_object(outcome.as_json(), as_json=as_json, text=lambda: demo_table(outcome))
