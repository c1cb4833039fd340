"""Commands around published versions: publish a model, list, show, go back to one, take one over, rebuild."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import in_words, print_object
from dafne_dante.config import Settings, load_settings

if TYPE_CHECKING:
    from dafne_dante.federation.depot import Depot

__all__ = ["Folder", "IntendedUse", "Licence", "Server", "Type", "depot_of", "publish"]

publish = typer.Typer(
    help="Put a model on the shelf as its type's newest version; list, show and bring back versions.",
    invoke_without_command=True,
)
Type = Annotated[str, typer.Option("--type", help="The model's type on the server.")]
Server = Annotated[str | None, typer.Option(help="Base URL of the federation server.")]
Folder = Annotated[Path | None, typer.Option(help="The server's folder, on this machine.")]
IntendedUse = Annotated[str, typer.Option(help="For the model card: what the model is for, and what not.")]
Licence = Annotated[str, typer.Option(help="For the model card: under which licence the model is given.")]
Version = Annotated[str, typer.Argument(help="A version, as `publish list` shows it.")]


def depot_of(settings: Settings, server: str | None, folder: Path | None, model_type: str) -> "Depot":
    """Where the versions are; a usage error unless exactly one of server and folder is named."""
    from dafne_dante.federation.client import connect
    from dafne_dante.federation.depot import FolderDepot, HttpDepot

    if (server is None) == (folder is None):
        raise typer.BadParameter("expected either --server URL or --folder DIR")
    return FolderDepot(folder, model_type) if folder else HttpDepot(connect(settings, server or ""), model_type)


@publish.callback()
def publish_model(
    context: typer.Context,
    root: Annotated[
        Path | None, typer.Option(help="The server's folder, or the `models` folder in it; made where it is not there.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Base URL of a server that has the type; needs the merge right.")
    ] = None,
    model_type: Annotated[str | None, typer.Option("--type", help="The model's type on the server.")] = None,
    model: Annotated[Path | None, typer.Option(help="The .model file.")] = None,
    intended_use: IntendedUse = "",
    licence: Licence = "",
    as_json: Json = False,
) -> None:
    """Put a model on the shelf as its type's newest version, and say that this operator takes deltas."""
    if context.invoked_subcommand is not None:
        return
    if (root is None) == (server is None) or model_type is None or model is None:
        raise typer.BadParameter(
            "expected --root DIR or --server URL, --type TYPE and --model FILE, or list, show or rollback"
        )
    from dafne_dante.federation.capability_block import BLOCK, capability_block
    from dafne_dante.federation.published_versions import hand_in
    from dafne_dante.federation.publishing import Statement
    from dafne_dante.models.file import read_model

    loaded, settings, statement = read_model(model), load_settings(), Statement(intended_use, licence)
    block = capability_block(settings)
    described = {"categories": list(loaded.plan.labels), BLOCK: block}
    depot = _depot_to_publish_in(settings, root, server, model_type, described)
    version = hand_in(depot, model_type, loaded, settings, statement)
    advertised = server is None or _advertises(settings, server, model_type, block)
    print_object(
        {"type": model_type, "version": version, "model_json": described, "advertised": advertised},
        as_json=as_json,
        text=lambda: "\n".join([f"{model_type}: version {version}", *([] if advertised else _to_be_put(described))]),
    )


def _depot_to_publish_in(
    settings: Settings, root: Path | None, server: str | None, model_type: str, described: dict[str, Any]
) -> "Depot":
    """The depot; in a folder the type is made where it is new, and its model.json says what `described` says."""
    from dafne_dante.federation.depot import FolderDepot, shelf_root
    from dafne_dante.federation.shelf import Shelf

    if root is None:
        return depot_of(settings, server, None, model_type)
    shelf = Shelf(shelf_root(root))
    known = shelf.description(model_type) if shelf.has_type(model_type) else {}
    shelf.add_type(model_type, {**known, **described})
    return FolderDepot(root, model_type)


def _advertises(settings: Settings, server: str, model_type: str, block: dict[str, Any]) -> bool:
    from dafne_dante.federation.capability_block import says
    from dafne_dante.federation.client import connect

    return says(connect(settings, server).model_info(model_type).capability, block)


def _to_be_put(described: dict[str, Any]) -> list[str]:
    """What to do where the server's own files say who takes deltas, and nobody but its operator can write them."""
    block = json.dumps(described, indent=1, sort_keys=True)
    return ["no site sends deltas yet: put these keys into the type's model.json on the server", block]


@publish.command("list")
def list_published(model_type: Type, server: Server = None, folder: Folder = None, as_json: Json = False) -> None:
    """All versions, newest first: when, how, by how many sites, Dice on the operator's cases, digest."""
    from dataclasses import asdict

    from dafne_dante.federation.published_versions import list_versions

    settings = load_settings()
    found = [asdict(one) for one in list_versions(depot_of(settings, server, folder, model_type), model_type, settings)]
    print_object(
        {"type": model_type, "versions": found}, as_json=as_json, text=lambda: "\n".join(_line(one) for one in found)
    )


@publish.command()
def show(
    version: Version, model_type: Type, server: Server = None, folder: Folder = None, as_json: Json = False
) -> None:
    """All about one version: who contributed what, Dice before and after per label, lineage."""
    from dafne_dante.federation.published_versions import show_version

    settings = load_settings()
    found = show_version(depot_of(settings, server, folder, model_type), model_type, version, settings)
    print_object(found, as_json=as_json, text=lambda: "\n".join(_told(found)))


@publish.command()
def rollback(
    version: Version,
    model_type: Type,
    server: Server = None,
    folder: Folder = None,
    intended_use: IntendedUse = "",
    licence: Licence = "",
    as_json: Json = False,
) -> None:
    """Publish an older version's model once more as the newest, which is what clients then take."""
    from dafne_dante.federation.published_versions import roll_back
    from dafne_dante.federation.publishing import Statement

    settings = load_settings()
    depot = depot_of(settings, server, folder, model_type)
    new = roll_back(depot, model_type, version, settings, Statement(intended_use, licence))
    print_object(
        {"type": model_type, "version": new, "brings_back": version},
        as_json=as_json,
        text=lambda: f"{model_type}: version {new} brings back {version}",
    )


@publish.command()
def adopt(
    version: Version, model_type: Type, server: Server = None, folder: Folder = None, as_json: Json = False
) -> None:
    """Take over the newest version as it lies there, though it was neither published from here nor signed here."""
    from dataclasses import asdict

    from dafne_dante.federation.adopting import adopt_version

    settings = load_settings()
    found = adopt_version(depot_of(settings, server, folder, model_type), model_type, version, settings)
    gone = f"; known no more: {', '.join(found.forgotten)}" if found.forgotten else ""
    print_object(
        {"type": model_type, **asdict(found)},
        as_json=as_json,
        text=lambda: f"{model_type}: took over version {version}, weights {found.weights_sha256[:16]}{gone}",
    )


@publish.command()
def rebuild(
    without: Annotated[list[str], typer.Option(help="An update's whole update_id; repeatable.")],
    validation: Annotated[Path, typer.Option(help="The operator's own labelled cases.")],
    model_type: Type,
    server: Server = None,
    folder: Folder = None,
    intended_use: IntendedUse = "",
    licence: Licence = "",
    as_json: Json = False,
) -> None:
    """Publish the newest version once more, merged anew without some updates."""
    from dataclasses import asdict

    from dafne_dante.annotations.folders import read_cases
    from dafne_dante.federation.publishing import Statement
    from dafne_dante.federation.rebuilding import rebuild_without

    settings = load_settings()
    found = rebuild_without(
        depot_of(settings, server, folder, model_type),
        model_type,
        without,
        read_cases(validation),
        settings,
        statement=Statement(intended_use, licence),
    )
    told = {"type": model_type, **asdict(found)}
    print_object(
        told,
        as_json=as_json,
        text=lambda: (
            f"{model_type}: version {found.version}, built on {found.start} with {len(found.kept)} update(s)\n"
            f"left out: {', '.join(found.left_out)}\nDice of the newest before: {in_words(dict(found.dice_before))}\n"
            f"Dice now: {in_words(dict(found.dice_after))}"
        ),
    )


def _line(one: dict[str, Any]) -> str:
    dice = "-" if one["dice"] is None else f"{one['dice']:.3f}"
    back = f" of {one['brings_back']}" if one["brings_back"] else ""
    sites = f"{one['updates']} update(s) of {one['contributors']} site(s)"
    return (
        f"{one['version']}  {one['created'] or 'unknown date'}  {one['kind']}{back}  {sites}  Dice {dice}  "
        f"{one['weights_sha256'][:16] or 'unread'}{'  current' if one['is_current'] else ''}"
    )


def _told(found: dict[str, Any]) -> list[str]:
    lines = [_line(found)]
    if found["dice_after"]:
        lines += [f"Dice before: {in_words(found['dice_before'])}", f"Dice after: {in_words(found['dice_after'])}"]
    lines += [
        f"{one['update_id']}  {one['site'] or one['username'] or 'unknown'}  {one['key'] or 'unsigned'}  "
        f"{one['cases']} case(s)  {one['method']}  {one['content_sha256'][:16]}"
        for one in found["contributions"]
    ]
    return [*lines, f"lineage: {' <- '.join(found['lineage'])}"]
