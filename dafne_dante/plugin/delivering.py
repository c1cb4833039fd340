"""From a signed delta to the server, by way of the outbox.

Invariants: the update is in the outbox before anything is asked of the server, and stays there until it has arrived or
a person cancels it; when this one has arrived, those that waited for the same server go, too; what arrives after its
job has ended is told in the job's results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dafne_dante.config import Settings
from dafne_dante.errors import StorageError
from dafne_dante.federation.client import connect
from dafne_dante.federation.outbox import Outbox, open_outbox, outbox_exists, settings_mark
from dafne_dante.federation.outbox_states import Entry, is_due
from dafne_dante.federation.route import checked_address
from dafne_dante.federation.sending import SiteClient, Tried, dispatch_for
from dafne_dante.plugin.arrivals import note_arrivals
from dafne_dante.plugin.pausing import is_paused

__all__ = ["Delivery", "deliver", "queue_update", "send_what_waits", "sent_in_words"]

_WAIT_S = 60.0


@dataclass(frozen=True)
class Delivery:
    """Where an update goes (base URL), its Dice on held-out cases, and what made the site make it."""

    server: str
    dice: float
    trigger: str


def queue_update(content: bytes, delivery: Delivery, settings: Settings) -> Entry:
    """Put a delta into the outbox, or find it there; StorageError, DeltaError as `Outbox.queue`."""
    return open_outbox(settings).queue(
        content, server=delivery.server, dice=delivery.dice, trigger=delivery.trigger
    )  # fmt: skip


def deliver(
    content: bytes, delivery: Delivery, settings: Settings, client: SiteClient, *, say: Callable[[str], None]
) -> Entry:
    """Queue a delta, then try to send it; `say` is told where it waits when it has not arrived.

    Raises:
        TransportError: it has not arrived; it waits in the outbox.
        StorageError: the disk refuses, or the outbox is full.
        DeltaError: it cannot be queued, see `Outbox.queue`.
    """
    entry = queue_update(content, delivery, settings)
    dispatcher = dispatch_for(settings, open_outbox(settings), client, delivery.server, wait_s=_WAIT_S)
    tried = dispatcher.send_one(entry.update_id)
    if tried.error is not None:
        say(f"the update is {tried.entry.state} in the outbox: dafne-dante outbox show {entry.update_id}")
        raise tried.error
    try:
        others = dispatcher.send_due()
        note_arrivals(settings)
    except StorageError as error:
        say(f"other updates still wait in the outbox: {error}")  # this one has arrived
        return tried.entry
    if others:
        say(sent_in_words(others))
    return tried.entry


def send_what_waits(
    settings: Settings, *, connecting: Callable[[Settings], SiteClient] = connect, asked: bool = False
) -> list[Tried]:
    """Send what is due in the outbox to the settings' server, and tell of it in the results of the jobs it came from.

    For the night, and for a host that is open, which may call it as often as it looks after its jobs, from a thread
    that does not paint: where nothing is due, no server is asked.

    Args:
        connecting: makes the client of the settings' server; a seam for tests.
        asked: whether a person asked for it just now, so that a pause does not matter.

    Returns:
        Every update that was tried; why one has not arrived is in its `error` and in the outbox.

    Raises:
        SettingsError: the key is missing, or the server or the way there cannot be used.
        StorageError: the disk refuses.
    """
    if not settings.server or not outbox_exists(settings) or (is_paused(settings) and not asked):
        return []
    outbox = open_outbox(settings)
    tried = []
    if _is_anything_due(outbox, settings):
        tried = dispatch_for(settings, outbox, connecting(settings), settings.server).send_due()
    note_arrivals(settings)
    return tried


def sent_in_words(tried: Sequence[Tried]) -> str:
    """How many of those that waited have arrived, and why the first one that has not did not."""
    faults = [one.error for one in tried if one.error is not None]
    told = f"{len(tried) - len(faults)} of {len(tried)} updates that waited in the outbox were sent"
    return f"{told}; {faults[0]}" if faults else told


def _is_anything_due(outbox: Outbox, settings: Settings) -> bool:
    address = checked_address(settings.server)
    ours = [entry for entry in outbox.entries(finished=False) if entry.server == address]
    if any(entry.state == "sending" for entry in ours):  # by another process, or by one that died
        return True
    mark = settings_mark(settings, outbox.salt) if ours else ""
    return any(is_due(entry, outbox.now_s, mark) for entry in ours)
