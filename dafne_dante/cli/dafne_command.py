"""The command `dafne`: Dafne's own client, with the plugin."""

import typer

__all__ = ["dafne"]


def dafne(context: typer.Context) -> None:
    """Start Dafne with the plugin; a path and Dafne's own options are passed on to it."""
    from dafne_dante.host.dafne_qt.start import start_dafne

    start_dafne(context.args)
