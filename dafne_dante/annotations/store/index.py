"""The index of a case store: which case is in which file, in one SQLite database.

Terms: a *row* binds a case to its file, and holds the case's header, sealed. A *doomed* file is one that no row needs
any more: a version that was replaced, a case that was removed.

Invariants
- In clear are pseudonyms, the random names of files, and sizes; nothing else.
- One process writes at a time: every change of the store, its files included, happens within `writing`, which holds
  SQLite's write lock from the start (BEGIN IMMEDIATE). The operating system releases it when a process dies.
- A row changes and a file is doomed in one transaction; files are deleted after it.
- Rollback journal, not WAL: WAL needs memory that processes share, which network drives do not have, and a store
  changes a few times a day. synchronous=EXTRA is FULL and a flush of the folder behind every commit: without that a
  commit may be undone by a power cut after we have deleted the old version.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.errors import StorageError

__all__ = ["INDEX_FILE", "Index", "Row", "Rows"]

INDEX_FILE = "index.sqlite"
_WAIT_S = 120.0
_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cases (
    case_id TEXT PRIMARY KEY, file TEXT NOT NULL UNIQUE, file_bytes INTEGER NOT NULL, header BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS doomed (file TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_REPAIR = "run: dafne-dante cases verify --repair"
_KEY_CHECK = "key check"
_COLUMNS = "case_id, file, file_bytes, header"


@dataclass(frozen=True)
class Row:
    """One case: its file, the size of that, and its sealed header."""

    case_id: str
    file: str
    file_bytes: int
    header: bytes


class Rows:
    """The rows within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> list[Row]:
        """Every row, by case_id."""
        query = f"SELECT {_COLUMNS} FROM cases ORDER BY case_id"  # noqa: S608 (no input)
        return [_row(*found) for found in self._connection.execute(query)]

    def get(self, case_id: str) -> Row | None:
        """The row of a case, also where damage to the order of the rows hides it from a search."""
        row = self._sought(case_id)
        if row is not None and row.case_id == case_id:
            return row
        return next((row for row in self.all() if row.case_id == case_id), None)

    def put(self, row: Row) -> None:
        """Bind the case to this file; a file that it had before is doomed."""
        self.drop(row.case_id)
        values = (row.case_id, row.file, row.file_bytes, row.header)
        self._connection.execute("INSERT INTO cases VALUES (?, ?, ?, ?)", values)

    def drop(self, case_id: str) -> bool:
        """Forget the case and doom its file; whether there was one."""
        row = self.get(case_id)
        if row != self._sought(case_id):
            raise sqlite3.DatabaseError("database disk image is malformed")  # or another case would be dropped
        if row is None:
            return False
        self.doom(row.file)
        self._connection.execute("DELETE FROM cases WHERE case_id = ?", (case_id,))
        return True

    def doom(self, file: str) -> None:
        """Nothing needs the file any more."""
        self._connection.execute("INSERT OR IGNORE INTO doomed VALUES (?)", (file,))

    def doomed(self) -> list[str]:
        """Files that nothing needs."""
        return [str(file) for (file,) in self._connection.execute("SELECT file FROM doomed ORDER BY file")]

    def forget_doomed(self, file: str) -> None:
        """The file is gone."""
        self._connection.execute("DELETE FROM doomed WHERE file = ?", (file,))

    def key_check(self) -> bytes:
        """What tells whether a key is this store's; empty in a new index."""
        found = self._connection.execute("SELECT value FROM facts WHERE name = ?", (_KEY_CHECK,)).fetchone()
        if found is None:
            return b""
        return found[0] if isinstance(found[0], bytes) else b"damaged"

    def set_key_check(self, value: bytes) -> None:
        """Written once, with the index."""
        self._connection.execute("INSERT INTO facts VALUES (?, ?)", (_KEY_CHECK, value))

    def _sought(self, case_id: str) -> Row | None:
        """What SQLite finds for the case: in a damaged database nothing, or another case."""
        query = f"SELECT {_COLUMNS} FROM cases WHERE case_id = ?"  # noqa: S608 (no input)
        found = self._connection.execute(query, (case_id,)).fetchone()
        return _row(*found) if found else None

    def fault(self) -> str:
        """What SQLite finds wrong with the database, in its words; empty when nothing is."""
        found = str(self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
        return "" if found == "ok" else found


class Index:
    """The database in a store's folder; each use opens it anew, so that threads and processes share nothing."""

    def __init__(self, folder: Path, *, wait_s: float = _WAIT_S) -> None:
        self._path, self._wait_s = folder.resolve() / INDEX_FILE, wait_s

    def create(self) -> None:
        """Make the database unless there is one; StorageError where the disk refuses, or it is of another version."""
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StorageError(
                f"cannot write {INDEX_FILE}: {error.strerror or type(error).__name__}; choose another folder"
            ) from error
        with self._transaction("BEGIN IMMEDIATE", self._wait_s) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _FORMAT):
                raise StorageError(f"expected a case store of version {_FORMAT}, found {version}; update dafne-dante")
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_FORMAT}")

    @contextmanager
    def reading(self) -> Iterator[Rows]:
        """The rows as they are now; a file that they name exists until the block ends."""
        with self._transaction("BEGIN", self._wait_s) as connection:
            yield Rows(connection)

    @contextmanager
    def writing(self, *, wait_s: float | None = None) -> Iterator[Rows]:
        """The rows, for this process alone to change; all of it happens, or nothing when the block raises.

        Raises:
            StorageError: another process was writing all the time, the disk refuses, or the database is damaged.
        """
        with self._transaction("BEGIN IMMEDIATE", self._wait_s if wait_s is None else wait_s) as connection:
            yield Rows(connection)

    @contextmanager
    def _transaction(self, begin: str, wait_s: float) -> Iterator[sqlite3.Connection]:
        try:
            opened = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, isolation_level=None)
            with closing(opened) as connection:
                connection.text_factory = lambda text: text.decode("utf-8", errors="replace")
                connection.execute(f"PRAGMA busy_timeout = {int(1000 * wait_s)}")
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("PRAGMA trusted_schema = OFF")
                connection.execute(begin)
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise StorageError(_told(error)) from error
        except UnicodeDecodeError as error:  # SQLite quotes a damaged schema in its message, which is no text then
            raise StorageError(f"expected a sound {INDEX_FILE}, found it damaged; {_REPAIR}") from error


def _row(case_id: object, file: object, file_bytes: object, header: object) -> Row:
    """A row of which nothing is believed: in a damaged database a column may hold anything."""
    size = file_bytes if isinstance(file_bytes, int) else -1
    return Row(str(case_id), str(file), size, header if isinstance(header, bytes) else b"")


def _told(error: sqlite3.Error) -> str:
    """SQLite's words name neither paths nor values."""
    text = str(error)
    if "locked" in text:
        return "expected the case store to become free, found another process writing all the time; try again"
    if "full" in text:
        return "cannot write the case store: the disk is full; free space"
    if "malformed" in text or "not a database" in text or "no such table" in text:
        return f"expected a sound {INDEX_FILE}, found it damaged ({text}); {_REPAIR}"
    return f"cannot use {INDEX_FILE} of the case store: {text}"
