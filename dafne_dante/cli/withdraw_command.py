"""The command of a site that takes an update back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object
from dafne_dante.config import Settings, load_settings

if TYPE_CHECKING:
    from dafne_dante.federation.withdrawing import WithdrawnUpdate

__all__ = ["withdraw"]


def withdraw(
    update_id: Annotated[str, typer.Argument(help="The update's update_id, or its first characters.")],
    to: Annotated[
        Path | None, typer.Option(help="Write a bundle for a stick instead of sending, at a site without a network.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take an update back: what waits is cancelled; what left is withdrawn from the operator, signed by this site."""
    from dafne_dante.delta.signing import load_signing_key
    from dafne_dante.errors import DeltaError
    from dafne_dante.federation.client import connect
    from dafne_dante.federation.outbox import open_outbox, outbox_exists
    from dafne_dante.federation.withdrawing import begin_withdrawal, send_withdrawal
    from dafne_dante.plugin.carrying_over import drop_carried

    settings = load_settings()
    if not outbox_exists(settings):
        raise DeltaError("expected an update of this site, found none; see dafne-dante outbox list --all")
    outbox = open_outbox(settings)
    withdrawn = begin_withdrawal(outbox, update_id, load_signing_key(settings.folder))
    drop_carried(settings, withdrawn.entry.update_id)
    if withdrawn.content and to is not None:
        _pack(withdrawn, settings, to)
    elif withdrawn.content:
        send_withdrawal(outbox, withdrawn, connect(settings, withdrawn.entry.server))
    told = "sent to the operator" if to is None else "packed for the operator"
    found = {"update_id": withdrawn.entry.update_id, "state": withdrawn.entry.state, "told": bool(withdrawn.content)}
    print_object(
        found,
        as_json=as_json,
        text=lambda: f"withdrawn: {told}" if withdrawn.content else "cancelled: it never left this site",
    )


def _pack(withdrawn: "WithdrawnUpdate", settings: Settings, to: Path) -> None:
    import tempfile
    from hashlib import sha256
    from uuid import uuid4

    from dafne_dante.delta.signing import load_signing_key
    from dafne_dante.durable import write_atomically
    from dafne_dante.federation.parcel import Item, new_content, write_parcel

    content, entry = withdrawn.content, withdrawn.entry
    # A name of its own: the update's is that of the update.
    item = Item(str(uuid4()), entry.model_type, sha256(content).hexdigest(), len(content))
    with tempfile.TemporaryDirectory(prefix="dafne-dante-") as folder:
        path = Path(folder) / "withdrawal"
        write_atomically(path, content)
        write_parcel(to, new_content("updates", entry.server, [item]), [path], load_signing_key(settings.folder))
