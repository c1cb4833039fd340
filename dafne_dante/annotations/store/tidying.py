"""Putting away what a process left that did not come to its end.

Terms: a *stray* is a finished file that no row of the index names.

Invariants: everything here happens under the index's write lock, so that no file that somebody is just writing is
touched; a stray is deleted only when the index has a sound version of its case that is as new or newer; one that is
whole and newer goes into the index, so that a lost row, or a lost index, costs no case; a damaged one stays.
"""

from contextlib import suppress

from dafne_dante.annotations.store.files import CaseFiles
from dafne_dante.annotations.store.headers import HeaderSeal
from dafne_dante.annotations.store.index import Rows
from dafne_dante.errors import StorageError

__all__ = ["delete_doomed", "strays", "tidy"]


def tidy(rows: Rows, files: CaseFiles, seal: HeaderSeal) -> None:
    """Delete what is unfinished, and settle strays, which may doom files; StorageError where the disk refuses."""
    for file in files.unfinished():
        files.delete(file)
    for file in strays(rows, files):
        with suppress(StorageError):  # damaged: it stays, and `verify` tells of it
            _settle(rows, files, seal, file)


def delete_doomed(rows: Rows, files: CaseFiles) -> None:
    """Delete the files that nothing needs, once that is committed; StorageError where the disk refuses."""
    needed = {row.file for row in rows.all()}
    for file in rows.doomed():
        if file not in needed:
            files.delete(file)
        rows.forget_doomed(file)


def strays(rows: Rows, files: CaseFiles) -> list[str]:
    """Finished files that no row names and that are not doomed."""
    known = {row.file for row in rows.all()} | set(rows.doomed())
    return [file for file in files.finished() if file not in known]


def _settle(rows: Rows, files: CaseFiles, seal: HeaderSeal, file: str) -> None:
    header, _ = files.read(file)
    before = seal.header_if_sound(rows.get(header.case_id))
    if before is not None and before.saved_ns >= header.saved_ns:
        files.delete(file)
    else:
        rows.put(seal.row(header, file, files.size(file)))
