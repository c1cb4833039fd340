"""Commands around the audit log: what left this site, and whether the log was tampered with."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object
from dafne_dante.config import load_settings

__all__ = ["audit"]

audit = typer.Typer(
    help="What left this site, when and to whom: an append-only log whose every record seals the one before.",
    no_args_is_help=True,
)


@audit.command()
def show(
    last: Annotated[int, typer.Option(min=0, help="Only so many of the newest records; 0 for all.")] = 0,
    as_json: Json = False,
) -> None:
    """What left, when (UTC), to whom, digest, size, by which trigger, and what came of it."""
    from dafne_dante.federation.audit import AuditLog
    from dafne_dante.federation.outbox import outbox_folder

    records = [dict(record) for record in AuditLog(outbox_folder(load_settings())).records()][-last:]
    print_object(
        {"records": records},
        as_json=as_json,
        text=lambda: "\n".join([_line(record) for record in records] or ["nothing has left this site"]),
    )


@audit.command()
def verify(as_json: Json = False) -> None:
    """Recompute the chain; exit code 1, and the first line that is wrong, when somebody changed the log."""
    from dafne_dante.federation.audit import AUDIT_FILE, AuditLog
    from dafne_dante.federation.outbox import open_outbox, outbox_exists, outbox_folder

    settings = load_settings()
    known = open_outbox(settings).audit_head() if outbox_exists(settings) else None
    found = AuditLog(outbox_folder(settings)).verify(known)
    torn = f"; {found.torn_bytes} bytes of a crash at the end, which the next record replaces" * bool(found.torn_bytes)
    fault = f"line {found.line} is wrong: {found.fault}"
    answer: dict[str, Any] = {
        "records": found.records, "line": found.line, "fault": found.fault, "torn_bytes": found.torn_bytes
    }  # fmt: skip
    text = f"{AUDIT_FILE}: {fault}" if found.fault else f"{AUDIT_FILE}: {found.records} records, unbroken{torn}"
    print_object(answer, as_json=as_json, text=lambda: text)
    if found.fault:
        raise typer.Exit(1)


def _line(record: dict[str, Any]) -> str:
    """One record as a sentence; a record that somebody wrote by hand may lack anything."""
    event = str(record.get("event"))
    told = _SENTENCES[event](record) if event in _SENTENCES else ""
    line = f"{record.get('number')}  {record.get('at')}  {event}" + (f"  {told}" if told else "")
    return "".join(one if one.isprintable() else "?" for one in line)


def _leaving(record: dict[str, Any]) -> str:
    again = "; sent again, since an earlier try may have arrived" if record.get("may_be_there") is True else ""
    return f"{_try(record)}: {_what(record)}, by {record.get('trigger')}{again}"


def _outcome(record: dict[str, Any]) -> str:
    why = f" ({record['why']})" if record.get("why") else ""
    return f"{_try(record)}: {record.get('outcome')}{why}"


def _cancelled(record: dict[str, Any]) -> str:
    return f"{_name(record)}, after {record.get('attempts')} tries"


def _packed(record: dict[str, Any]) -> str:
    by = f", by {record['trigger']}" if record.get("trigger") else ""
    opened = f" (sealed; open SHA-256 {record['open_sha256']})" if record.get("open_sha256") else ""
    return f"{_name(record)}: {_what(record)}{opened}{by}, in bundle {record.get('bundle')}"


def _closed(record: dict[str, Any]) -> str:
    return f"{_name(record)}: SHA-256 {record.get('sha256')}, {record.get('to')}, by bundle {record.get('bundle')}"


def _repaired(record: dict[str, Any]) -> str:
    return f"{record.get('torn_bytes')} bytes of a record that a crash had cut were replaced"


def _withdrawing(record: dict[str, Any]) -> str:
    outcome = f": {record['outcome']}" if record.get("outcome") else ""
    return f"{_name(record)}: withdrawal for {record.get('model_type')}, to {record.get('to')}{outcome}"


_SENTENCES: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "leaving": _leaving,
    "outcome": _outcome,
    "cancelled": _cancelled,
    "packed": _packed,
    "receipt": _closed,
    "handed-over": _closed,
    "repaired": _repaired,
    # Of logs before withdrawals were queued.
    "withdrawing": _withdrawing,
    "withdrawn": _withdrawing,
}


def _name(record: dict[str, Any]) -> str:
    return f"update {str(record.get('update_id', ''))[:8]}"


def _try(record: dict[str, Any]) -> str:
    return f"{_name(record)} (try {record.get('attempt')})"


def _what(record: dict[str, Any]) -> str:
    """What left and to whom: kind, bytes and digest of the outbox's file, and of the form in which it left."""
    kind = f"withdrawal of {record['withdraws']}" if record.get("withdraws") else record.get("kind", "delta")
    told = f"{kind} of {record.get('model_type')}, {record.get('bytes')} bytes, SHA-256 {record.get('sha256')}"
    for form, words in (("sealed", "sealed"), ("full_model", "as a full model")):
        if f"{form}_sha256" in record:
            size, digest = record.get(f"{form}_bytes"), record[f"{form}_sha256"]
            told += f", which left {words}: {size} bytes, SHA-256 {digest}"
    return f"{told}, to {record.get('to')}"
