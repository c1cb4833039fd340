"""Commands around the improved models that this site keeps for itself: list, use, global, update, forget."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.options import Data, Json
from dafne_dante.cli.output import print_object, say
from dafne_dante.config import load_settings

if TYPE_CHECKING:
    from dafne_dante.plugin.local.versions import LocalState

__all__ = ["local"]

local = typer.Typer(help="Improved models that this site uses before they are merged.", no_args_is_help=True)
Type = Annotated[str, typer.Argument(help="The model's type on the server.")]


@local.command("list")
def list_models(as_json: Json = False) -> None:
    """Every type with its improved models; * is what Dafne uses."""
    from dafne_dante.plugin.local.shelf import local_shelf, local_types

    settings = load_settings()
    states = [local_shelf(settings, model_type).state() for model_type in local_types(settings)]
    lines = [line for state in states for line in _lines(state)] or ["this site has no improved model"]
    print_object({"types": [_plain(state) for state in states]}, as_json=as_json, text=lambda: "\n".join(lines))


@local.command()
def use(
    version: Annotated[int, typer.Argument(min=1, help="A version's number, as `local list` shows it.")],
    model_type: Annotated[str, typer.Option("--type", help="Its type; needed when there are several.")] = "",
    as_json: Json = False,
) -> None:
    """Go back to an earlier improved model, or forward again."""
    from dafne_dante.errors import SettingsError
    from dafne_dante.plugin.local.shelf import local_shelf, local_types

    settings = load_settings()
    types = [model_type] if model_type else local_types(settings)
    if len(types) != 1:
        raise SettingsError(f"expected one type with improved models, found {len(types)}; name it with --type")
    shelf = local_shelf(settings, types[0])
    found = shelf.state().find(version)
    if found is not None:
        shelf.model_path(found)  # refused now, not when Dafne loads it
    state = shelf.choose(version, f"somebody went to the improved model {version}")
    print_object(_plain(state), as_json=as_json, text=lambda: "\n".join(_lines(state)))


@local.command("global")
def use_global(model_type: Type, as_json: Json = False) -> None:
    """Go back to the global model; the improved ones stay."""
    from dafne_dante.plugin.local.shelf import local_shelf

    state = local_shelf(load_settings(), model_type).choose(0, "somebody went back to the global model")
    print_object(_plain(state), as_json=as_json, text=lambda: "\n".join(_lines(state)))


@local.command()
def update(model_type: Type, data: Data = None, as_json: Json = False) -> None:
    """Look for a newer global model; carry what was learned here over to it where that is better, else drop it."""
    from dafne_dante.federation.client import connect
    from dafne_dante.plugin.collecting import CaseRequest
    from dafne_dante.plugin.jobs import open_jobs
    from dafne_dante.plugin.local.updating import update_here

    settings = load_settings()
    cases = CaseRequest(tuple(data or ()))
    state = update_here(model_type, settings, open_jobs(settings), connect(settings), cases, say=say)
    print_object(_plain(state), as_json=as_json, text=lambda: "\n".join(_lines(state)))


@local.command()
def forget(model_type: Type, as_json: Json = False) -> None:
    """Remove all improved models of a type from this machine."""
    from dafne_dante.plugin.local.shelf import local_shelf

    there = local_shelf(load_settings(), model_type).forget()
    told = "the improved models were removed" if there else "there was no improved model"
    print_object({"removed": there}, as_json=as_json, text=lambda: told)


def _plain(state: "LocalState") -> dict[str, Any]:
    return {
        "type": state.model_type,
        "uses": state.chosen,
        "status": state.status,
        "versions": [
            {"version": one.number, "base": one.base, "dice_before": one.before, "dice_after": one.after,
             "told": one.told}
            for one in state.versions
        ],
    }  # fmt: skip


def _lines(state: "LocalState") -> list[str]:
    lines = [f"{state.model_type}: {state.status}", f"{' ' if state.chosen else '*'} global"]
    return lines + [f"{'*' if one.number == state.chosen else ' '} {one.number}  {one.told}" for one in state.versions]
