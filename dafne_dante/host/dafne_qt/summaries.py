"""What a job left in its folder for whoever asks later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dafne_dante.durable import read_bounded
from dafne_dante.plugin.job_states import object_in

__all__ = ["job_summary", "report_of"]

_OUT = "out"
_REPORT, _SUMMARY = "report.html", "summary.json"
_MOST_BYTES = 1 << 20


def job_summary(folder: Path) -> Mapping[str, Any]:
    """The summary of the job whose folder this is; nothing where there is none, or no object."""
    path = folder / _OUT / _SUMMARY
    return object_in(read_bounded(path, max_bytes=_MOST_BYTES).decode(errors="replace")) if path.is_file() else {}


def report_of(folder: Path) -> Path | None:
    """The job's page, if there is one."""
    report = folder / _OUT / _REPORT
    return report if report.is_file() else None
