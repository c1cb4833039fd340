"""Headers of cases, sealed into the rows of the index.

Invariants: a header is authenticated together with the case, the file and the size of its row, so that no column can
be changed or exchanged between rows unseen.
"""

from contextlib import suppress

from dafne_dante.annotations.store.contents import CaseHeader, decode_header
from dafne_dante.annotations.store.index import Row
from dafne_dante.annotations.store.key import StoreKey
from dafne_dante.annotations.store.sealing import seal_blob, unseal_blob
from dafne_dante.errors import StorageError

__all__ = ["HeaderSeal"]


class HeaderSeal:
    """Makes rows from headers, and headers from rows."""

    def __init__(self, key: StoreKey) -> None:
        self._key = key.derive("headers")

    def row(self, header: CaseHeader, file: str, file_bytes: int) -> Row:
        """The row that binds the case to its file."""
        context = _context(header.case_id, file, file_bytes)
        return Row(header.case_id, file, file_bytes, seal_blob(self._key, context, header.to_bytes()))

    def header(self, row: Row) -> CaseHeader:
        """What the row says; StorageError naming the case when it is not as it was sealed."""
        name = f"case {row.case_id}"
        context = _context(row.case_id, row.file, row.file_bytes)
        return decode_header(unseal_blob(self._key, context, row.header, name), name)

    def header_if_sound(self, row: Row | None) -> CaseHeader | None:
        """The same; None when there is no row, or a damaged one, compared to which any sound version is newer."""
        if row is not None:
            with suppress(StorageError):
                return self.header(row)
        return None


def _context(case_id: str, file: str, file_bytes: int) -> bytes:
    return f"{case_id}|{file}|{file_bytes}".encode()
