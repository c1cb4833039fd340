"""The command of a site that takes an update back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object, say
from dafne_dante.config import Settings, load_settings

if TYPE_CHECKING:
    from dafne_dante.federation.outbox import Outbox
    from dafne_dante.federation.outbox_states import Entry

__all__ = ["withdraw"]

_WAIT_S = 10.0


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
    from dafne_dante.federation.outbox import open_outbox, outbox_exists
    from dafne_dante.federation.parcel_trade import pack_withdrawal
    from dafne_dante.federation.withdrawing import begin_withdrawal
    from dafne_dante.plugin.carrying_over import drop_carried

    settings = load_settings()
    if not outbox_exists(settings):
        raise DeltaError("expected an update of this site, found none; see dafne-dante outbox list --all")
    outbox, key = open_outbox(settings), load_signing_key(settings.folder)
    withdrawn = begin_withdrawal(outbox, update_id, key)
    drop_carried(settings, withdrawn.entry.update_id)
    if withdrawn.withdrawal is not None and to is not None:
        pack_withdrawal(outbox, withdrawn.withdrawal, to, key, seal_key=settings.seal_key)
    elif withdrawn.withdrawal is not None:
        _send(outbox, withdrawn.withdrawal, settings)
    told = "sent to the operator" if to is None else "packed for the operator; it waits until its receipt is back"
    left = withdrawn.withdrawal is not None
    print_object(
        {"update_id": withdrawn.entry.update_id, "state": withdrawn.entry.state, "told": left},
        as_json=as_json,
        text=lambda: f"withdrawn: {told}" if left else "cancelled: it never left this site",
    )


def _send(outbox: "Outbox", withdrawal: "Entry", settings: Settings) -> None:
    """Try it now; where it does not arrive it waits in the outbox, and the error says why."""
    from dafne_dante.errors import DanteError
    from dafne_dante.federation.client import connect
    from dafne_dante.federation.sending import dispatch_for

    waits = f"the withdrawal waits in the outbox: dafne-dante outbox show {withdrawal.update_id}"
    try:
        client = connect(settings, withdrawal.server)
        tried = dispatch_for(settings, outbox, client, withdrawal.server, wait_s=_WAIT_S).send_one(withdrawal.update_id)
    except DanteError:
        say(waits)
        raise
    if tried.error is not None:
        say(waits)
        raise tried.error
