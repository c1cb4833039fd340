"""The sealed files of a case store: one for each version of a case.

Terms: a file is called `<case_id>-<32 random digits>.case`; one that is being written has a name that begins with "."
and ends with ".part".

Invariants: a name that is not of this form is never opened or deleted, wherever it comes from; a file is authenticated
together with its name, so that a renamed or exchanged file is a damaged one; a file is whole before it has its name.
"""

import re
import secrets
from pathlib import Path
from typing import IO

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.store.contents import CaseHeader, decode_case, encode_case
from dafne_dante.annotations.store.key import StoreKey
from dafne_dante.annotations.store.sealing import seal, unseal
from dafne_dante.durable import write_stream_atomically
from dafne_dante.errors import AnnotationError, StorageError

__all__ = ["CaseFiles", "case_id_of", "checked_case_id"]

_CASE_ID = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(r"([0-9a-f]{16})-[0-9a-f]{32}\.case")
_PART = re.compile(r"\.[^/\\]*\.part")


def checked_case_id(case_id: str) -> str:
    """The same; AnnotationError unless it is 16 hexadecimal digits, so that nothing else is ever written in clear."""
    if not _CASE_ID.fullmatch(case_id):
        raise AnnotationError("expected a case_id of 16 hexadecimal digits, found another; take it from `read_case`")
    return case_id


def case_id_of(file: str) -> str:
    """The case that a file's name tells; empty when it is no name of a case's file."""
    found = _FILE.fullmatch(file)
    return found.group(1) if found else ""


class CaseFiles:
    """The files in a store's folder; StorageError where the disk refuses."""

    def __init__(self, folder: Path, key: StoreKey) -> None:
        self._folder, self._key = folder, key.derive("case files")

    def write(self, case: Case, header: CaseHeader) -> tuple[str, int]:
        """Seal the case into a new file, flushed to the disk; its name and size."""
        name = f"{checked_case_id(case.case_id)}-{secrets.token_hex(16)}.case"

        def fill(stream: IO[bytes]) -> None:
            seal(self._key, name.encode(), encode_case(case, header), stream.write)

        write_stream_atomically(self._folder / name, fill, mode=0o600)
        return name, self.size(name)

    def open(self, file: str) -> IO[bytes]:
        """The file, for `decode`; StorageError naming the case when it is gone."""
        case_id = case_id_of(file)
        try:
            if case_id:
                return (self._folder / file).open("rb")
        except OSError as error:
            raise StorageError(
                f"case {case_id}: cannot read its file: {error.strerror or type(error).__name__}; restore it from a "
                "copy, or remove the case and add the study again"
            ) from error
        raise StorageError("expected the name of a case's file, found another; run: dafne-dante cases verify")

    def decode(self, stream: IO[bytes], file: str) -> tuple[CaseHeader, Case]:
        """The case in an open file; StorageError naming it when the file is not as it was sealed."""
        case_id = case_id_of(file)
        header, case = decode_case(unseal(self._key, file.encode(), stream, f"case {case_id}"), f"case {case_id}")
        if case.case_id != case_id:
            raise StorageError(f"case {case_id}: expected its own file, found that of another case; remove it")
        return header, case

    def read(self, file: str) -> tuple[CaseHeader, Case]:
        """The case in a file; StorageError naming it when the file is not as it was sealed."""
        with self.open(file) as stream:
            return self.decode(stream, file)

    def size(self, file: str) -> int:
        """Bytes of a file."""
        try:
            return (self._folder / file).stat().st_size
        except OSError as error:
            raise StorageError(f"cannot read {file}: {error.strerror or type(error).__name__}") from error

    def delete(self, file: str) -> None:
        """Delete a file of ours, finished or not; nothing happens when it is gone, or is none of ours."""
        if not _FILE.fullmatch(file) and not _PART.fullmatch(file):
            return
        try:
            (self._folder / file).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot delete a file of the case store: {error.strerror}; try again") from error

    def finished(self) -> list[str]:
        """Names of all finished files, by name."""
        return [name for name in self._names() if _FILE.fullmatch(name)]

    def unfinished(self) -> list[str]:
        """Names of files that were being written when somebody last looked."""
        return [name for name in self._names() if _PART.fullmatch(name)]

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._folder.iterdir())
        except OSError as error:
            raise StorageError(f"cannot list the case store: {error.strerror or type(error).__name__}") from error
