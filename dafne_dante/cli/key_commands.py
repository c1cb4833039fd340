"""Commands around keys: create, show, trust."""

from typing import Annotated

import typer

from dafne_dante.cli.output import print_object
from dafne_dante.config import configuration_folder

__all__ = ["keys"]

keys = typer.Typer(help="This site's signing key, and the keys that an operator trusts.", no_args_is_help=True)
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
    name: Annotated[str, typer.Option(help="What to call the site.")],
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


def _show_key(public_key: str, as_json: bool) -> None:
    from dafne_dante.delta.signing import fingerprint

    print_object(
        {"public_key": public_key, "fingerprint": fingerprint(public_key)},
        as_json=as_json,
        text=lambda: f"{public_key}\nfingerprint {fingerprint(public_key)}",
    )
