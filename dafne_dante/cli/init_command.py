"""The command `init`, and settings that a command line replaces."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object
from dafne_dante.config import SECTIONS, configuration_folder, site_folder

__all__ = ["init", "replaced_settings"]


def init(
    site: Annotated[
        bool, typer.Option("--site", help="The file that everybody at this machine reads; keep keys out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a settings file with every setting explained; one that is there is left as it is."""
    from dafne_dante.settings_template import write_template

    path = write_template(site_folder(), mode=0o644) if site else write_template(configuration_folder())
    print_object({"file": str(path)}, as_json=as_json, text=lambda: f"edit {path}")


@contextmanager
def replaced_settings(texts: Sequence[str]) -> Iterator[None]:
    """NAME=VALUE goes before the environment within the block, here and in the processes that are started.

    Raises:
        typer.BadParameter: no such setting.
    """
    before = dict(os.environ)
    for text in texts:
        name, equals, value = text.partition("=")
        known = name.rpartition(".")[2] in {one for names in SECTIONS.values() for one in names}
        if not equals or not known:
            raise typer.BadParameter(f"expected a setting as NAME=VALUE, found {name}", param_hint="--set")
        os.environ[f"DAFNE_DANTE_{name.rpartition('.')[2].upper()}"] = value
    try:
        yield
    finally:
        for text in texts:
            variable = f"DAFNE_DANTE_{text.partition('=')[0].rpartition('.')[2].upper()}"
            os.environ.pop(variable, None)
            if variable in before:
                os.environ[variable] = before[variable]
