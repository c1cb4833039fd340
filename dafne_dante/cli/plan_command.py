"""The command `plan`: what `train` would do with some cases on this machine, and why."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.output import errors_console, print_object
from dafne_dante.config import load_settings

if TYPE_CHECKING:
    from dafne_dante.models.configure import ArchitectureChoice

__all__ = ["plan"]

_ARCHITECTURES: tuple["ArchitectureChoice", ...] = ("auto", "unet2d", "unet3d", "dynunet")


def plan(
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Labelled studies: a folder or a file with NIfTI, DICOM or Dafne bundles, mixed if need be; "
            "repeatable. The cases that this site keeps (`cases list`) when left out.",
        ),
    ] = None,
    architecture: Annotated[str, typer.Option(help="auto, unet2d, unet3d or dynunet.")] = "auto",
    memory_gb: Annotated[
        float | None,
        typer.Option(help="Memory that a training step may take, in GB (10^9 bytes); what is free when left out."),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(help="The DICOM series to use, by UID or description; else the one that labels refer to."),
    ] = None,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="Leave faulty studies of a dataset out instead of refusing all of it.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")
    ] = False,
) -> None:
    """Show which network, patch and batch suit labelled cases on this machine, and why; nothing is trained."""
    from dafne_dante.annotations.collect import sentences
    from dafne_dante.plugin.collecting import CaseRequest, account
    from dafne_dante.plugin.planning import PlanRequest, describe_configuration, make_plan

    chosen = _architecture(architecture)
    if memory_gb is not None and not memory_gb > 0:
        raise typer.BadParameter(f"expected more than 0, found {memory_gb:g}", param_hint="--memory-gb")
    request = PlanRequest(CaseRequest(tuple(data or ()), series, skip_faulty), chosen, memory_gb)
    configuration, survey = make_plan(request, load_settings(), say=_say)
    for line in sentences(survey):
        _say(line)
    description = describe_configuration(configuration)
    print_object({**description, **account(survey)}, as_json=as_json, text=lambda: _table(description["why"]))


def _architecture(name: str) -> "ArchitectureChoice":
    for known in _ARCHITECTURES:
        if known == name:
            return known
    raise typer.BadParameter(f"expected {', '.join(_ARCHITECTURES)}, found {name}", param_hint="--architecture")


def _table(why: Mapping[str, Any]) -> str:
    """One choice a line, what was chosen first; Z runs through the slices."""
    width = max(map(len, why))
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {sentence}" for name, sentence in why.items())


def _say(text: str) -> None:
    errors_console.print(text, markup=False)
