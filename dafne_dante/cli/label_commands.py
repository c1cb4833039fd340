"""Commands around the names of structures: suggest."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from dafne_dante.cli.options import Data, Json, Series
from dafne_dante.cli.output import print_object, say
from dafne_dante.config import Settings, load_settings

__all__ = ["labels"]

labels = typer.Typer(help="What this site calls a structure, and what a model calls it.", no_args_is_help=True)


@labels.callback()
def _options() -> None:
    """What this site calls a structure, and what a model calls it."""


@labels.command()
def suggest(
    data: Data = None,
    model: Annotated[str, typer.Option(help="A .model file, or a model's type on the server.")] = "",
    server: Annotated[str, typer.Option(help="Another server than that of the settings.")] = "",
    series: Series = None,
    as_json: Json = False,
) -> None:
    """Print the section [labels] for the names of DATA that the model does not know; left is never taken for right."""
    from dafne_dante.plugin.collecting import CaseRequest
    from dafne_dante.plugin.labelling import survey_names, toml_block

    if not model:
        raise typer.BadParameter("expected a .model file or a model's type", param_hint="--model")
    settings = load_settings()
    known = _labels_of(model, server, settings)
    survey = survey_names(CaseRequest(tuple(data or ()), series), settings, known)
    if survey.missing:
        say(f"no study has a name for {', '.join(survey.missing)}")
    text = toml_block(survey) if survey.suggestions else "# the model knows every name"
    print_object({**survey.as_json(), "toml": text}, as_json=as_json, text=lambda: text)


def _labels_of(model: str, server: str, settings: Settings) -> tuple[str, ...]:
    """The model's labels, from a file or from the newest version of a type."""
    from dafne_dante.federation.client import connect
    from dafne_dante.plugin.base_model import base_from_file, base_from_server

    if model.endswith(".model"):
        return base_from_file(Path(model)).model.plan.labels
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "newest.model"
        client = connect(settings, server)
        return base_from_server(client, model, place, settings=settings, server=server, say=say).model.plan.labels
