"""The command `plan`: what `train` would do with some cases on this machine, and why."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.options import Data, Json, MemoryGb, Series, SkipFaulty
from dafne_dante.cli.output import print_object, say, tell
from dafne_dante.config import load_settings

if TYPE_CHECKING:
    from dafne_dante.models.configure import ArchitectureChoice

__all__ = ["architecture_named", "plan"]

_ARCHITECTURES: tuple["ArchitectureChoice", ...] = ("auto", "unet2d", "unet3d", "dynunet")


def plan(
    data: Data = None,
    architecture: Annotated[str, typer.Option(help="auto, unet2d, unet3d or dynunet.")] = "auto",
    memory_gb: MemoryGb = None,
    series: Series = None,
    skip_faulty: SkipFaulty = False,
    as_json: Json = False,
) -> None:
    """Show which network, patch and batch suit labelled cases on this machine, and why; nothing is trained."""
    from dafne_dante.plugin.collecting import CaseRequest, account
    from dafne_dante.plugin.planning import PlanRequest, describe_configuration, make_plan

    chosen = architecture_named(architecture)
    if memory_gb is not None and not memory_gb > 0:
        raise typer.BadParameter(f"expected more than 0, found {memory_gb:g}", param_hint="--memory-gb")
    request = PlanRequest(CaseRequest(tuple(data or ()), series, skip_faulty), chosen, memory_gb)
    configuration, survey = make_plan(request, load_settings(), say=say)
    tell(survey)
    description = describe_configuration(configuration)
    print_object({**description, **account(survey)}, as_json=as_json, text=lambda: _table(description["why"]))


def architecture_named(name: str) -> "ArchitectureChoice":
    """The architecture of that name; typer.BadParameter for any other."""
    for known in _ARCHITECTURES:
        if known == name:
            return known
    raise typer.BadParameter(f"expected {', '.join(_ARCHITECTURES)}, found {name}", param_hint="--architecture")


def _table(why: Mapping[str, Any]) -> str:
    """One choice a line, what was chosen first; Z runs through the slices."""
    width = max(map(len, why))
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {sentence}" for name, sentence in why.items())
