"""Commands around keys: create, show, trust, pin."""

from typing import Annotated

import typer

from dafne_dante.cli.output import print_object
from dafne_dante.config import configuration_folder

__all__ = ["keys"]

keys = typer.Typer(
    help="This site's signing key, the keys that an operator trusts, and the operators' keys that a site pins.",
    no_args_is_help=True,
)
Server = Annotated[str, typer.Option(help="The server's address; the settings' server when left out.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


@keys.command()
def create(
    seal: Annotated[
        bool, typer.Option("--seal", help="As an operator, a key that sites can seal their updates to.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make this site's signing key, or an operator's seal key; one that exists is never replaced."""
    from dafne_dante.delta.sealing import create_seal_key
    from dafne_dante.delta.signing import create_signing_key

    _show_key((create_seal_key if seal else create_signing_key)(configuration_folder()), as_json)


@keys.command()
def show(as_json: Json = False) -> None:
    """Show this site's public key; give it to the operator, and compare the fingerprint by telephone."""
    from dafne_dante.delta.signing import load_signing_key, public_key_text

    _show_key(public_key_text(load_signing_key(configuration_folder())), as_json)


@keys.command()
def trust(
    public_key: Annotated[str, typer.Argument(help="A site's public key, as `keys show` prints it there.")],
    name: Annotated[str, typer.Option(help="What to call the site: its user name on the server, where it has one.")],
    as_json: Json = False,
) -> None:
    """As an operator, take deltas that this key signed."""
    from dafne_dante.delta.signing import fingerprint, trust_key

    trust_key(configuration_folder(), public_key, name)
    print_object(
        {"public_key": public_key, "fingerprint": fingerprint(public_key), "name": name},
        as_json=as_json,
        text=lambda: f"trusted {name}: {fingerprint(public_key)}",
    )


@keys.command()
def pin(
    place: Annotated[str, typer.Argument(metavar="TYPE", help='The model type; "" for all types of the server.')],
    public_key: Annotated[str, typer.Argument(help="The operator's public key, as `keys show` prints it there.")],
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Take a type's global models only when this key signed them; replaces the key that was pinned before."""
    from dafne_dante.config import load_settings
    from dafne_dante.delta.signing import fingerprint
    from dafne_dante.federation.pins import PinFile, Place
    from dafne_dante.federation.route import checked_address
    from dafne_dante.federation.trusted import Pin

    settings = load_settings()
    address = checked_address(server or settings.server)
    told = fingerprint(public_key)
    PinFile(settings.folder).put(Place(address, place), Pin(public_key))
    print_object(
        {"server": address, "model_type": place, "public_key": public_key, "fingerprint": told},
        as_json=as_json,
        text=lambda: f"{place or 'all types'} on {address}: only what {told} signed",
    )


@keys.command()
def pins(as_json: Json = False) -> None:
    """List the operators' keys that this site has pinned, and the newest release it took of each."""
    from dataclasses import asdict

    from dafne_dante.config import load_settings
    from dafne_dante.delta.signing import fingerprint
    from dafne_dante.federation.pins import PinFile

    settings = load_settings()
    known = sorted(PinFile(settings.folder).all().items())
    rows = [asdict(place) | asdict(held) | {"fingerprint": fingerprint(held.public_key)} for place, held in known]
    lines = [
        f"{row['model_type'] or 'all types'} on {row['server']}: {row['fingerprint']} ({row['origin']}), "
        f"release {row['number'] or 'none yet'}"
        for row in rows
    ]
    if settings.operator_key:
        lines.append(f"everywhere, by the settings: {fingerprint(settings.operator_key)}")
    print_object(
        {"pins": rows, "operator_key": settings.operator_key},
        as_json=as_json,
        text=lambda: "\n".join(lines) or "no key is pinned yet",
    )


@keys.command()
def unpin(
    place: Annotated[str, typer.Argument(metavar="TYPE", help='The model type; "" for the pin of the whole server.')],
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Forget a pinned key: the next model's key is pinned anew, whoever's it is."""
    from dafne_dante.config import load_settings
    from dafne_dante.federation.pins import PinFile, Place
    from dafne_dante.federation.route import checked_address

    settings = load_settings()
    address = checked_address(server or settings.server)
    PinFile(settings.folder).remove(Place(address, place))
    print_object(
        {"server": address, "model_type": place},
        as_json=as_json,
        text=lambda: f"{place or 'all types'} on {address}: no key is pinned any more",
    )


def _show_key(public_key: str, as_json: bool) -> None:
    from dafne_dante.delta.signing import fingerprint

    print_object(
        {"public_key": public_key, "fingerprint": fingerprint(public_key)},
        as_json=as_json,
        text=lambda: f"{public_key}\nfingerprint {fingerprint(public_key)}",
    )
