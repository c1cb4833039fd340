"""An update that arrives later than its job ended is told where the job's results are: in summary.json and the report.

Terms: results *expect* an arrival while the page that will be their report then lies beside them, hidden.

Invariants
- The page is there before the update can arrive and goes last, so that a kill at any point leaves what is told the next
  time, by whoever looks: the outbox alone says what has arrived.
- Only results of jobs expect anything; of others nobody knows later where they are.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dafne_dante.config import Settings
from dafne_dante.durable import digest_file, move_file, read_bounded, write_atomically
from dafne_dante.errors import StorageError
from dafne_dante.federation.outbox import open_outbox, outbox_exists
from dafne_dante.federation.outbox_states import Entry
from dafne_dante.plugin.jobs import jobs_folder
from dafne_dante.plugin.report.facts import ReportFacts
from dafne_dante.plugin.report.writing import REPORT, write_report

__all__ = ["expect_arrival", "note_arrivals"]

_REPORT_THEN = ".report-when-sent.html"
_DELTA, _SUMMARY = "update.delta", "summary.json"
_MAX_JSON_BYTES = 1 << 20


def expect_arrival(out: Path, then: ReportFacts) -> None:
    """Keep the report for the time when the update of these results has arrived; StorageError where the disk refuses.

    Args:
        out: the results' folder, complete.
        then: what the report is to tell then.
    """
    write_report(out / _REPORT_THEN, then)


def note_arrivals(settings: Settings) -> list[Path]:
    """Tell of every update of a job that has arrived since it ended, and return the folders of those results.

    Raises:
        StorageError: a disk refuses, or a summary is damaged; what is left is told the next time.
    """
    waiting = sorted(jobs_folder(settings).glob(f"*/*/{_REPORT_THEN}"))
    if not waiting or not outbox_exists(settings):
        return []
    sent = [entry for entry in open_outbox(settings).entries() if entry.state == "sent"]
    found = [page.parent for page in waiting if _is_of(page.parent / _DELTA, sent)]
    for out in found:
        _note(out)
    return found


def _is_of(delta: Path, sent: Iterable[Entry]) -> bool:
    size = delta.stat().st_size if delta.is_file() else -1
    return any(entry.size_bytes == size and entry.sha256 == digest_file(delta) for entry in sent)


def _note(out: Path) -> None:
    try:
        summary: dict[str, Any] = json.loads(read_bounded(out / _SUMMARY, max_bytes=_MAX_JSON_BYTES))
        content = json.dumps({**summary, "uploaded": True}, indent=1, sort_keys=True) + "\n"
    except (ValueError, TypeError, RecursionError) as error:
        raise StorageError(f"expected the summary of a job, found a fault in {_SUMMARY}; improve again") from error
    write_atomically(out / _SUMMARY, content.encode())
    move_file(out / _REPORT_THEN, out / REPORT)
