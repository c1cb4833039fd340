"""Commands around the outbox: list, show, send, retry, cancel."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object, say
from dafne_dante.config import Settings, load_settings

if TYPE_CHECKING:
    from dafne_dante.federation.outbox import Outbox
    from dafne_dante.federation.outbox_states import Entry
    from dafne_dante.federation.sending import Dispatcher, Tried

__all__ = ["outbox"]

outbox = typer.Typer(help="Updates that are to leave this site, and what became of them.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="An update's update_id, or its first characters.")]
Server = Annotated[
    str, typer.Option(help="Base URL of the federation server; that of the settings when left out.")
]  # fmt: skip


@outbox.command("list")
def list_updates(
    everything: Annotated[bool, typer.Option("--all", help="Also what was sent or cancelled.")] = False,
    as_json: Json = False,
) -> None:
    """What waits, and why; with --all everything that was ever queued."""
    found = _outbox()
    entries = found.entries() if found else []
    shown = [entry for entry in entries if everything or entry.state not in ("sent", "cancelled")]
    counts = {state: sum(entry.state == state for entry in entries) for state in _states()}
    total = sum(entry.size_bytes for entry in entries if entry.state not in ("sent", "cancelled"))
    lines = [_line(entry) for entry in shown]
    lines.append(", ".join(f"{count} {state}" for state, count in counts.items()) + f"; {total / 1e6:.1f} MB kept")
    print_object(
        {"updates": [_described(entry) for entry in shown], **counts, "bytes": total},
        as_json=as_json,
        text=lambda: "\n".join(lines),
    )


@outbox.command()
def show(name: Name, as_json: Json = False) -> None:
    """All about one update, with what the audit log has of it."""
    found = _existing()
    entry = found.find(name)
    described = _described(entry)
    records = [dict(record) for record in found.audit.records() if record.get("update_id") == entry.update_id]
    print_object(
        {**described, "records": records},
        as_json=as_json,
        text=lambda: "\n".join(f"{key}: {value}" for key, value in described.items()),
    )


@outbox.command()
def send(server: Server = "", as_json: Json = False) -> None:
    """Send what is due, oldest first; exit code 1 when something could not be sent."""
    from dafne_dante.plugin.arrivals import note_arrivals

    settings = load_settings()
    found = _outbox()
    tried = _dispatcher(settings, found, server).send_due() if found else []
    note_arrivals(settings)
    _report(tried, as_json=as_json)


@outbox.command()
def retry(
    name: Annotated[str, typer.Argument(help="An update's update_id, or its first characters.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All that wait or were refused.")] = False,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Try now, whatever held an update (a wrong key, a refusal, a pause); exit code 1 when it was not sent."""
    from dafne_dante.plugin.arrivals import note_arrivals

    if bool(name) == everything:
        raise typer.BadParameter("expected either an update_id or --all")
    settings, found = load_settings(), _existing()
    waiting = [entry for entry in found.entries(finished=False) if entry.state in ("waiting", "refused")]
    chosen = waiting if everything else [found.find(name)]
    dispatcher = _dispatcher(settings, found, server)
    for entry in chosen:
        if entry.state != "sending":  # or by a process that died, which is found out below
            found.retry(entry.update_id)
    tried = [dispatcher.send_one(entry.update_id) for entry in chosen]
    note_arrivals(settings)
    _report(tried, as_json=as_json)


@outbox.command()
def cancel(name: Name, as_json: Json = False) -> None:
    """Never send an update, and delete its file here."""
    from dafne_dante.federation.sending import cancel_update

    entry = cancel_update(_existing(), name)
    if entry.doubtful:
        say("an earlier try may have arrived; ask the operator to leave the update out")
    print_object(_described(entry), as_json=as_json, text=lambda: f"cancelled {entry.update_id}")


def _outbox() -> "Outbox | None":
    from dafne_dante.federation.outbox import open_outbox, outbox_exists

    settings = load_settings()
    return open_outbox(settings) if outbox_exists(settings) else None


def _existing() -> "Outbox":
    from dafne_dante.errors import DeltaError

    found = _outbox()
    if found is None:
        raise DeltaError("expected an update in the outbox, found none; improve with --upload queues one")
    return found


def _dispatcher(settings: Settings, found: "Outbox", server: str) -> "Dispatcher":
    from dafne_dante.federation.client import connect
    from dafne_dante.federation.sending import dispatch_for

    return dispatch_for(settings, found, connect(settings, server), server or settings.server)


def _report(tried: "list[Tried]", *, as_json: bool) -> None:
    lines = [_line(one.entry) for one in tried] or ["nothing is due"]
    for one in tried:
        if one.error is not None:
            say(f"{one.entry.update_id[:8]}: {one.error}")
    sent = sum(one.error is None for one in tried)
    answer = {"updates": [_described(one.entry) for one in tried], "sent": sent, "not_sent": len(tried) - sent}
    print_object(answer, as_json=as_json, text=lambda: "\n".join(lines))
    if sent < len(tried):
        raise typer.Exit(1)


def _states() -> tuple[str, ...]:
    from dafne_dante.federation.outbox_states import STATES

    return STATES


def _described(entry: "Entry") -> dict[str, Any]:
    from dafne_dante.federation.audit import utc
    from dafne_dante.federation.outbox_states import WORDS

    waits = entry.state == "waiting"
    return {
        "update_id": entry.update_id,
        "state": entry.state,
        "why": entry.why,
        "why_in_words": WORDS.get(entry.why, ""),
        "told": entry.told,
        "next_try": utc(entry.next_try_s) if waits and entry.next_try_s is not None else None,
        "held": waits and entry.next_try_s is None,
        "kind": entry.kind,
        "type": entry.model_type,
        "server": entry.server,
        "bytes": entry.size_bytes,
        "sha256": entry.sha256,
        "dice": entry.dice,
        "trigger": entry.trigger,
        "queued": utc(entry.queued_s),
        "changed": utc(entry.changed_s),
        "attempts": entry.attempts,
        "doubtful": entry.doubtful,
    }


def _line(entry: "Entry") -> str:
    told = _described(entry)
    words = told["why_in_words"]
    more = " (held until you retry, or change the settings)" if told["held"] else ""
    more = f" (next try {told['next_try']})" if told["next_try"] else more
    size = f"{entry.size_bytes / 1e6:.3f} MB"
    return f"{entry.update_id}  {entry.state}  {entry.model_type}  {size}" + (f"  {words}{more}" if words else "")
