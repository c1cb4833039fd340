"""What waits to be sent and what was sent, for the Activity window; no Qt here, and nothing is changed.

Invariants: what was sent is told from the audit log, which is written before anything leaves; it is read again only
when it has grown; what cannot be read is a DanteError, whose words are shown; a report is found by the digest of the
update that its job made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dafne_dante.config import Settings
from dafne_dante.durable import digest_file
from dafne_dante.federation.audit import AUDIT_FILE, AuditLog
from dafne_dante.federation.outbox import open_outbox, outbox_exists, outbox_folder
from dafne_dante.federation.outbox_states import WORDS as OUTBOX_WORDS
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.moments import local_moment, moment_of_utc
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.report.words import bytes_in_words

__all__ = ["SentLine", "WaitingLine", "sent_lines", "waiting_lines"]

_MOST = 200
_REPORT, _DELTA = "report.html", "update.delta"
_OUT = "out"


@dataclass(frozen=True)
class WaitingLine:
    """An update that has not left: of which model, how large, why it waits, since when; its job's report, if any."""

    model_type: str
    size: str
    why: str
    since: str
    report: Path | None = None


@dataclass(frozen=True)
class SentLine:
    """A try to send: when, to whom, of which model, how large, SHA-256, what came of it; its job's report, if any."""

    when: str
    to: str
    model_type: str
    size: str
    sha256: str
    outcome: str
    report: Path | None = None


def waiting_lines(settings: Settings, queue: JobQueue) -> list[WaitingLine]:
    """Updates that are neither sent nor cancelled, those that wait longest first; DanteError as the outbox."""
    if not outbox_exists(settings):
        return []
    reports = _reports(queue)
    return [
        WaitingLine(
            one.model_type,
            bytes_in_words(one.size_bytes),
            words.SENDING_NOW if one.state == "sending" else OUTBOX_WORDS.get(one.why, one.why),
            local_moment(one.queued_s),
            reports.get(one.sha256),
        )
        for one in open_outbox(settings).entries(finished=False)
    ]


def sent_lines(settings: Settings, queue: JobQueue) -> list[SentLine]:
    """What has left, or may have, the newest first; DanteError where the audit log cannot be read."""
    path = outbox_folder(settings) / AUDIT_FILE
    if not path.is_file():
        return []
    state = path.stat()
    reports = _reports(queue)
    return [_sent(record, outcome, reports) for record, outcome in _tries(path, state.st_mtime_ns, state.st_size)]


@lru_cache(maxsize=4)
def _tries(path: Path, changed_ns: int, size: int) -> list[tuple[Mapping[str, Any], str]]:
    """Each try with what came of it, the newest first; `changed_ns` and `size` tell when to read again."""
    found: dict[tuple[Any, Any], tuple[Mapping[str, Any], str]] = {}
    for record in AuditLog(path.parent).records():
        name = (record.get("update_id"), record.get("attempt"))
        if record.get("event") == "leaving":
            found[name] = (record, "")
        elif record.get("event") == "outcome" and name in found:
            found[name] = (found[name][0], str(record.get("outcome", "")))
    return list(reversed(found.values()))[:_MOST]


def _sent(record: Mapping[str, Any], outcome: str, reports: Mapping[str, Path]) -> SentLine:
    """What left is the sealed copy, or the full model, where there is one."""
    size = record.get("sealed_bytes", record.get("full_model_bytes", record.get("bytes", 0)))
    sha256 = str(record.get("sealed_sha256", record.get("full_model_sha256", record.get("sha256", ""))))
    return SentLine(
        moment_of_utc(str(record.get("at", ""))),
        str(record.get("to", "")),
        str(record.get("model_type", "")),
        bytes_in_words(size if isinstance(size, int) else 0),
        sha256,
        words.OUTCOMES.get(outcome, outcome),
        reports.get(str(record.get("sha256", ""))),
    )


def _reports(queue: JobQueue) -> dict[str, Path]:
    """SHA-256 of the update that a job made to the job's report."""
    found = {}
    for job in queue.jobs():
        out = queue.folder_of(job.job_id) / _OUT
        delta, report = out / _DELTA, out / _REPORT
        if delta.is_file() and report.is_file():
            found[_digest(delta, delta.stat().st_mtime_ns)] = report
    return found


@lru_cache(maxsize=1024)
def _digest(path: Path, changed_ns: int) -> str:
    return digest_file(path)
