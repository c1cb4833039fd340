"""Commands of whoever runs the embedded server: serve, users and their rights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import errors_console, print_object

if TYPE_CHECKING:
    from dafne_dante.federation.accounts import Account

__all__ = ["serve", "server"]

server = typer.Typer(help="Users and model types of the embedded server.", no_args_is_help=True)
users = typer.Typer(help="Who may use the server.", no_args_is_help=True)
server.add_typer(users, name="users")

Root = Annotated[Path, typer.Option(help="The server's folder.")]
Name = Annotated[str, typer.Argument(help="The user's name.")]


def serve(
    root: Root,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; behind a TLS proxy the default is right.")
    ] = "127.0.0.1",
    pending_gib: Annotated[
        float, typer.Option(min=0.001, help="What one user may have waiting to be merged, of all types.")
    ] = 8.0,
    reserve_gib: Annotated[float, typer.Option(min=0.0, help="Free space on the disk that no upload takes.")] = 1.0,
) -> None:
    """Run the federation server: Dafne's HTTP API on a folder, until Ctrl-C."""
    from dafne_dante.federation.running import serve as run
    from dafne_dante.federation.server_limits import ServerLimits

    limits = ServerLimits(pending_bytes=int(pending_gib * 1024**3), reserve_bytes=int(reserve_gib * 1024**3))
    told = f"serving on http://{host}:{port}/ (put a TLS proxy before it)"
    run(root, port, host, limits=limits, on_listening=lambda: errors_console.print(told, markup=False))


@users.command()
def add(
    name: Annotated[str, typer.Argument(help="Letters, digits and hyphens.")],
    root: Root,
    access: Annotated[list[str] | None, typer.Option(help="A type to read and upload to; repeat for more.")] = None,
    read: Annotated[list[str] | None, typer.Option(help="A type to read only; repeat for more.")] = None,
    upload: Annotated[list[str] | None, typer.Option(help="A type to upload to only; repeat for more.")] = None,
    merge: Annotated[list[str] | None, typer.Option(help="A type to merge, for an operator; repeat for more.")] = None,
    as_json: Json = False,
) -> None:
    """Add a user and show their API key, this once."""
    from dafne_dante.federation.accounts import Accounts

    key = Accounts(root).add_user(
        name, access=access or [], read=read or [], upload=upload or [], merge=merge or []
    )  # fmt: skip
    _show_key(name, key, as_json)


@users.command()
def rotate(name: Name, root: Root, as_json: Json = False) -> None:
    """Give a user another API key, shown this once; the old one is refused from now on."""
    from dafne_dante.federation.accounts import Accounts

    _show_key(name, Accounts(root).rotate(name), as_json)


@users.command()
def permit(
    name: Name,
    root: Root,
    model_type: Annotated[str, typer.Option("--type", help="The model's type.")],
    right: Annotated[
        list[str] | None,
        typer.Option(help="read, upload or merge (which includes both); repeat for more, none to take all away."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set what a user may do with one type, at once."""
    from dafne_dante.federation.accounts import RIGHTS, Accounts

    if not set(right or []) <= set(RIGHTS):
        raise typer.BadParameter(f"expected one of {', '.join(RIGHTS)}", param_hint="--right")
    accounts = Accounts(root)
    accounts.permit(name, model_type, right or [])
    rights = next(_rights(one) for one in accounts.list_users() if one.name == name)
    print_object({"name": name, **rights}, as_json=as_json, text=lambda: f"{name}: {_in_words(rights)}")


@users.command(name="list")
def list_users(root: Root, as_json: Json = False) -> None:
    """Show who may do what; never a key."""
    from dafne_dante.federation.accounts import Accounts

    found = {one.name: _rights(one) for one in Accounts(root).list_users()}
    print_object(
        {"users": found},
        as_json=as_json,
        text=lambda: "\n".join(f"{name}: {_in_words(rights)}" for name, rights in found.items()) or "no users yet",
    )


@users.command()
def revoke(name: Name, root: Root, as_json: Json = False) -> None:
    """Take a user's key away, at once."""
    from dafne_dante.federation.accounts import Accounts

    Accounts(root).revoke(name)
    print_object({"revoked": name}, as_json=as_json, text=lambda: f"{name} has no access any more")


def _show_key(name: str, key: str, as_json: bool) -> None:
    print_object(
        {"name": name, "api_key": key},
        as_json=as_json,
        text=lambda: f"{name}: {key}\nIt is not shown again: put it into the site's settings.toml.",
    )


def _rights(account: "Account") -> dict[str, list[str]]:
    return {"read": sorted(account.read), "upload": sorted(account.upload), "merge": sorted(account.merge)}


def _in_words(rights: dict[str, list[str]]) -> str:
    return "; ".join(f"{right} {', '.join(types) or '-'}" for right, types in rights.items())
