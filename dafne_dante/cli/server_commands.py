"""Commands of whoever runs the embedded server: serve, users, types."""

from pathlib import Path
from typing import Annotated

import typer

from dafne_dante.cli.output import errors_console, print_object

__all__ = ["serve", "server"]

server = typer.Typer(help="Users and model types of the embedded server.", no_args_is_help=True)
users = typer.Typer(help="Who may use the server.", no_args_is_help=True)
server.add_typer(users, name="users")

Root = Annotated[Path, typer.Option(help="The server's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


def serve(
    root: Root,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; behind a TLS proxy the default is right.")
    ] = "127.0.0.1",
) -> None:
    """Run the federation server: Dafne's HTTP API on a folder, until Ctrl-C."""
    from dafne_dante.federation.running import serve as run

    told = f"serving on http://{host}:{port}/ (put a TLS proxy before it)"
    run(root, port, host, on_listening=lambda: errors_console.print(told, markup=False))


@users.command()
def add(
    name: Annotated[str, typer.Argument(help="Letters, digits and hyphens.")],
    root: Root,
    access: Annotated[list[str] | None, typer.Option(help="A type to read and upload to; repeat for more.")] = None,
    merge: Annotated[list[str] | None, typer.Option(help="A type to merge, for an operator; repeat for more.")] = None,
    as_json: Json = False,
) -> None:
    """Add a user and show their API key, this once."""
    from dafne_dante.federation.accounts import Accounts

    key = Accounts(root).add_user(name, access=access or [], merge=merge or [])
    print_object(
        {"name": name, "api_key": key},
        as_json=as_json,
        text=lambda: f"{name}: {key}\nIt is not shown again: put it into the site's settings.toml.",
    )


@users.command(name="list")
def list_users(root: Root, as_json: Json = False) -> None:
    """Show who may do what; never a key."""
    from dafne_dante.federation.accounts import Accounts

    found = {
        one.name: {"access": sorted(one.access), "merge": sorted(one.merge)} for one in Accounts(root).list_users()
    }
    print_object(
        {"users": found},
        as_json=as_json,
        text=lambda: "\n".join(
            f"{name}: access {', '.join(rights['access']) or '-'}; merge {', '.join(rights['merge']) or '-'}"
            for name, rights in found.items()
        ),
    )


@users.command()
def revoke(name: Annotated[str, typer.Argument(help="The user's name.")], root: Root, as_json: Json = False) -> None:
    """Take a user's key away, at once."""
    from dafne_dante.federation.accounts import Accounts

    Accounts(root).revoke(name)
    print_object({"revoked": name}, as_json=as_json, text=lambda: f"{name} has no access any more")
