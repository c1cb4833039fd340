"""Commands around the audit log: what left this site, and whether the log was tampered with."""

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
    name = str(record.get("update_id", ""))[:8]
    head = f"{record.get('number')}  {record.get('at')}  {record.get('event')}"
    event = record.get("event")
    if event == "leaving":
        again = "; sent again, since an earlier try may have arrived" if record.get("may_be_there") is True else ""
        head += (
            f"  update {name} (try {record.get('attempt')}): {record.get('kind')} of {record.get('model_type')}, "
            f"{record.get('bytes')} bytes, SHA-256 {record.get('sha256')}, to {record.get('to')}, "
            f"by {record.get('trigger')}{again}"
        )
    elif event == "outcome":
        why = f" ({record['why']})" if record.get("why") else ""
        head += f"  update {name} (try {record.get('attempt')}): {record.get('outcome')}{why}"
    elif event == "cancelled":
        head += f"  update {name}, after {record.get('attempts')} tries"
    elif event == "repaired":
        head += f"  {record.get('torn_bytes')} bytes of a record that a crash had cut were replaced"
    return "".join(one if one.isprintable() else "?" for one in head)
