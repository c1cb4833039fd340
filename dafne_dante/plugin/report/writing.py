"""Where the report of an improvement is written.

Invariants: a place that cannot be written to is told before training begins; the file is whole or absent, readable by
its owner only, for it shows slices of patients' images.
"""

from pathlib import Path

from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import SettingsError
from dafne_dante.plugin.report.facts import ReportFacts
from dafne_dante.plugin.report.page import report_page

__all__ = ["REPORT", "check_report_place", "write_report"]

REPORT = "report.html"


def check_report_place(path: Path | None) -> None:
    """Make the folder of a report that is to lie elsewhere than with the results; None is well.

    Raises:
        SettingsError: the path is a folder, or its name does not end with .html, so that no browser would show it.
        StorageError: the folder cannot be made.
    """
    if path is None:
        return
    if path.suffix.lower() not in {".html", ".htm"} or path.is_dir():
        raise SettingsError(f"expected a file for the report whose name ends with .html, found {path.name}")
    make_folder(path.parent)


def write_report(path: Path, facts: ReportFacts) -> None:
    """Write the page; StorageError where the disk refuses."""
    write_atomically(path, report_page(facts), mode=0o600)
