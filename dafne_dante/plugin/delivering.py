"""From a signed delta to the server, by way of the outbox.

Invariants: the update is in the outbox before anything is asked of the server, and stays there until it has arrived or
a person cancels it; when this one has arrived, those that waited for the same server go, too.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dafne_dante.config import Settings
from dafne_dante.errors import StorageError
from dafne_dante.federation.outbox import open_outbox
from dafne_dante.federation.outbox_states import Entry
from dafne_dante.federation.sending import SiteClient, dispatch_for
from dafne_dante.federation.telling import told_in_megabytes

__all__ = ["Delivery", "deliver"]

_WAIT_S = 60.0


@dataclass(frozen=True)
class Delivery:
    """Where an update goes (base URL), its Dice on held-out cases, and what made the site make it."""

    server: str
    dice: float
    trigger: str


def deliver(
    content: bytes, delivery: Delivery, settings: Settings, client: SiteClient, *, say: Callable[[str], None]
) -> Entry:
    """Queue a delta, then try to send it; `say` is told how far it is, and where it waits when it has not arrived.

    Raises:
        TransportError: it has not arrived; it waits in the outbox.
        StorageError: the disk refuses, or the outbox is full.
        DeltaError: it cannot be queued, see `Outbox.queue`.
    """
    outbox = open_outbox(settings)
    entry = outbox.queue(content, server=delivery.server, dice=delivery.dice, trigger=delivery.trigger)
    progress = told_in_megabytes(say, "sending")
    dispatcher = dispatch_for(settings, outbox, client, delivery.server, wait_s=_WAIT_S, progress=progress)
    tried = dispatcher.send_one(entry.update_id)
    if tried.error is not None:
        say(f"the update is {tried.entry.state} in the outbox: dafne-dante outbox show {entry.update_id}")
        raise tried.error
    try:
        others = dispatcher.send_due()
    except StorageError as error:
        say(f"other updates still wait in the outbox: {error}")  # this one has arrived
        return tried.entry
    if others:
        arrived = sum(other.error is None for other in others)
        say(f"{arrived} of {len(others)} updates that waited in the outbox were sent as well")
    return tried.entry
