"""Commands of sites without a network: export, import, close and show bundles for a USB stick."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object, say
from dafne_dante.config import Settings, load_settings

if TYPE_CHECKING:
    from dafne_dante.federation.client import Capability, FederationClient
    from dafne_dante.federation.outbox import Outbox
    from dafne_dante.federation.parcel import Content, Item, Parcel

__all__ = ["bundle", "client_of_bundle", "queue_for_bundle"]

bundle = typer.Typer(help="Models and updates on a USB stick, for sites without a network.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="The bundle.")]
Server = Annotated[str, typer.Option(help="Base URL of the federation server; that of the settings when left out.")]
Folder = Annotated[Path | None, typer.Option(help="A server's folder, or its `models`, on this machine.")]


@bundle.command("export")
def export_bundle(
    to: Annotated[Path, typer.Option(help="The file to write.")],
    model_type: Annotated[str, typer.Option("--global", help="Pack the newest model of this type.")] = "",
    outbox: Annotated[bool, typer.Option("--outbox", help="Pack the updates that wait in the outbox.")] = False,
    server: Server = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Pack a global model, or what waits in the outbox, as one signed file."""
    from dafne_dante.delta.signing import ensure_signing_key

    if bool(model_type) == outbox:
        raise typer.BadParameter("expected either --global TYPE or --outbox")
    settings = load_settings()
    key = ensure_signing_key(settings.folder)
    address = server or settings.server
    if outbox:
        from dafne_dante.federation.parcel_trade import pack_outbox

        content = pack_outbox(_outbox(settings), address, to, key, seal_key=settings.seal_key)
    else:
        content = _pack_model(settings, model_type, address, folder, to)
    _print(content, as_json)


@bundle.command("import")
def import_bundle(
    file: File,
    out: Annotated[Path | None, typer.Option(help="Of a global model: the .model file to write.")] = None,
    server: Server = "",
    folder: Folder = None,
    receipt: Annotated[Path | None, typer.Option(help="Of updates: the receipt to write for the site.")] = None,
    as_json: Json = False,
) -> None:
    """Take a bundle: a site a global model or a receipt, an operator a site's updates."""
    from dafne_dante.federation.parcel import check_packer, open_parcel
    from dafne_dante.federation.parcel_trade import packers

    settings, parcel = load_settings(), open_parcel(file)
    if parcel.content.kind == "updates":
        _import_updates(parcel, settings, server, folder, receipt=receipt, as_json=as_json)
        return
    types = {item.model_type for item in parcel.content.items}
    check_packer(parcel, packers(settings, parcel.content.server, types))
    if parcel.content.kind == "receipt":
        _close(parcel.content, "receipt", as_json)
    elif out is None:
        raise typer.BadParameter("expected the file to write the model to", param_hint="--out")
    else:
        _import_model(parcel, settings, out, as_json)


@bundle.command()
def close(file: File, as_json: Json = False) -> None:
    """Say that a bundle of this site was handed over, where no receipt comes back: its updates count as sent."""
    from dafne_dante.delta.signing import load_signing_key, public_key_text
    from dafne_dante.errors import DeltaError
    from dafne_dante.federation.parcel import check_packer, open_parcel

    parcel = open_parcel(file)
    check_packer(parcel, [public_key_text(load_signing_key(load_settings().folder))])
    if parcel.content.kind != "updates":
        raise DeltaError("expected a bundle of this site's updates, found one of another kind")
    _close(parcel.content, "handed-over", as_json)


@bundle.command()
def show(file: File, as_json: Json = False) -> None:
    """What a bundle carries, and who packed it."""
    from dafne_dante.delta.signing import fingerprint
    from dafne_dante.federation.parcel import open_parcel

    parcel = open_parcel(file)
    say(f"packed by {fingerprint(parcel.public_key)}")
    _print(parcel.content, as_json)


def client_of_bundle(file: Path, settings: Settings) -> "tuple[FederationClient, str]":
    """A client that takes its models from a bundle, and the server in whose place the bundle is."""
    from dafne_dante.federation.client import FederationClient
    from dafne_dante.federation.parcel import check_packer, open_parcel
    from dafne_dante.federation.parcel_trade import packers
    from dafne_dante.federation.parcel_transport import ParcelTransport

    parcel = open_parcel(file)
    client = FederationClient(ParcelTransport(parcel))
    check_packer(parcel, packers(settings, parcel.content.server, {item.model_type for item in parcel.content.items}))
    return client, parcel.content.server


def queue_for_bundle(delta: Path, settings: Settings, server: str, dice: float) -> str:
    """Queue an update that is to leave on a stick and return its update_id."""
    from dafne_dante.delta.container import MAX_DELTA_BYTES
    from dafne_dante.durable import read_bounded
    from dafne_dante.federation.outbox import open_outbox

    content = read_bounded(delta, max_bytes=MAX_DELTA_BYTES)
    return open_outbox(settings).queue(content, server=server, dice=dice, trigger="command").update_id


def _pack_model(settings: Settings, model_type: str, address: str, folder: Path | None, to: Path) -> "Content":
    import tempfile
    from dataclasses import asdict

    from dafne_dante.delta.signing import load_signing_key
    from dafne_dante.errors import ServerAnswerError
    from dafne_dante.federation.client import connect
    from dafne_dante.federation.depot import FolderDepot, server_root
    from dafne_dante.federation.parcel_trade import pack_model
    from dafne_dante.federation.shelf import Shelf

    key = load_signing_key(settings.folder)
    with tempfile.TemporaryDirectory(prefix="dafne-dante-") as scratch:
        place = Path(scratch) / "newest.model"
        if folder is not None:
            depot = FolderDepot(folder, model_type)
            if not (versions := depot.versions()):
                raise ServerAnswerError("expected a published version of this type, found none; publish one first")
            version, told = versions[-1], Shelf(server_root(folder)).description(model_type).get("dafne_dante")
            capability = told if isinstance(told, dict) else {}
            depot.fetch_model(version, place)
        else:
            client = connect(settings, address)
            info = client.model_info(model_type)
            version, capability = info.latest_timestamp, asdict(info.capability) if info.capability else {}
            client.download_model(model_type, version, place)
        return pack_model(
            place, to, key, version=version, model_type=model_type, server=address, capability=capability
        )  # fmt: skip


def _import_model(parcel: "Parcel", settings: Settings, out: Path, as_json: bool) -> None:
    from dafne_dante.federation.client import FederationClient
    from dafne_dante.federation.parcel_transport import ParcelTransport
    from dafne_dante.plugin.base_model import base_from_server

    [item] = parcel.content.items
    client, place = FederationClient(ParcelTransport(parcel)), out.with_name(f".{out.name}.unchecked")
    try:
        base = base_from_server(
            client, item.model_type, place, settings=settings, server=parcel.content.server, say=say
        )  # fmt: skip
        place.replace(out)
    finally:
        place.unlink(missing_ok=True)
    print_object(
        {"type": base.model_type, "version": base.version, "trust": base.trust},
        as_json=as_json,
        text=lambda: f"{out.name}: {base.model_type}, version {base.version}",
    )


def _import_updates(
    parcel: "Parcel", settings: Settings, server: str, folder: Path | None, *, receipt: Path | None, as_json: bool
) -> None:
    import tempfile

    from dafne_dante.delta.signing import ensure_signing_key
    from dafne_dante.federation.parcel_trade import receive_updates, sender_name, write_receipt

    deliver = _deliverer(settings, server, folder, parcel, sender_name(parcel, settings))
    with tempfile.TemporaryDirectory(prefix="dafne-dante-") as scratch:
        new, every = receive_updates(parcel, settings.folder / "operator" / "bundles", Path(scratch), deliver)
    if receipt is not None:
        write_receipt(parcel, receipt, ensure_signing_key(settings.folder))
    print_object(
        {"taken": [item.name for item in new], "updates": len(every), "receipt": receipt is not None},
        as_json=as_json,
        text=lambda: f"{len(new)} new of {len(every)} update(s) queued for the merge",
    )


def _deliverer(settings: Settings, server: str, folder: Path | None, parcel: "Parcel", username: str) -> Any:
    """What puts an update into the operator's queue: a server's folder, or a server by HTTP.

    Raises:
        ServerAnswerError: a type takes no deltas; one would block the queue of a stock merger.
    """
    from dafne_dante.federation.client import capability_of, connect
    from dafne_dante.federation.depot import server_root
    from dafne_dante.federation.shelf import Shelf

    types = sorted({item.model_type for item in parcel.content.items})
    if folder is None:
        client = connect(settings, server)
        for model_type in types:
            _check_takes_deltas(model_type, client.model_info(model_type).capability)

        def send(item: "Item", path: Path) -> None:
            client.upload(item.model_type, path, item.dice)

        return send
    shelf = Shelf(server_root(folder))
    for model_type in types:
        _check_takes_deltas(model_type, capability_of(shelf.description(model_type)))

    def receive(item: "Item", path: Path) -> None:
        shelf.receive_copy(item.model_type, username, path)

    return receive


def _check_takes_deltas(model_type: str, capability: "Capability | None") -> None:
    from dafne_dante.errors import ServerAnswerError
    from dafne_dante.federation.sending import takes_deltas

    if not takes_deltas(capability):
        raise ServerAnswerError(
            f"expected {model_type} to take deltas, found that its model.json does not say so, so that one would block "
            "a stock merger's queue; nothing was taken: publish a version with dafne-dante publish first"
        )


def _close(content: "Content", event: str, as_json: bool) -> None:
    from dafne_dante.federation.parcel_trade import close_updates

    closed = close_updates(_outbox(load_settings()), content, event=event)
    print_object(
        {"sent": [entry.update_id for entry in closed], "updates": len(content.items)},
        as_json=as_json,
        text=lambda: f"{len(closed)} update(s) count as sent now, of {len(content.items)} in the bundle",
    )


def _outbox(settings: Settings) -> "Outbox":
    from dafne_dante.errors import DeltaError
    from dafne_dante.federation.outbox import open_outbox, outbox_exists

    if not outbox_exists(settings):
        raise DeltaError("expected an update in the outbox, found none; improve queues one")
    return open_outbox(settings)


def _print(content: "Content", as_json: bool) -> None:
    from dataclasses import asdict

    lines = [f"{content.kind} for {content.server}, packed {content.created}"]
    lines += [f"{item.model_type}  {item.name}  {item.size_bytes} bytes  {item.sha256}" for item in content.items]
    print_object(asdict(content), as_json=as_json, text=lambda: "\n".join(lines))
