"""The outbox's database: one row an update, in one SQLite file.

Invariants
- A row is written in one transaction, whole, and never deleted: an update that left, or was cancelled, is known for
  ever. What is stored is checked when it is read.
- WAL, so that a list can be read while another process writes; synchronous=FULL, so that what was committed is on the
  disk. Where the folder's disk cannot do WAL (a network drive), SQLite keeps its rollback journal, as durably.
- One process writes at a time, within `writing` (BEGIN IMMEDIATE), which the operating system ends with the process.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout

from dafne_dante.errors import StorageError
from dafne_dante.federation.outbox_states import STATES, Entry, Kind

__all__ = ["DATABASE_FILE", "OutboxDatabase", "Rows"]

DATABASE_FILE = "outbox.sqlite"
_WAIT_S = 120.0
_FORMAT = 2
_NAMES = tuple(item.name for item in fields(Entry))
_COLUMNS = ", ".join(_NAMES)
_FACTS = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_UPDATES = """
CREATE TABLE updates (
    place INTEGER PRIMARY KEY, update_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('delta', 'withdrawal')),
    server TEXT NOT NULL, model_type TEXT NOT NULL, sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    dice REAL NOT NULL, trigger TEXT NOT NULL, queued_s REAL NOT NULL, changed_s REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sending', 'sent', 'refused', 'cancelled')),
    why TEXT NOT NULL, told TEXT NOT NULL, attempts INTEGER NOT NULL, failures INTEGER NOT NULL,
    doubtful INTEGER NOT NULL, next_try_s REAL, held_by TEXT NOT NULL, withdraws TEXT NOT NULL
);
CREATE INDEX by_state ON updates (state, place);
"""
_ASIDE = "DROP INDEX by_state; ALTER TABLE updates RENAME TO updates_1;"
_BACK = """
INSERT INTO updates SELECT *, '' FROM updates_1;
DROP TABLE updates_1
"""
_REPAIR = "restore the outbox's folder from a copy, or move it away and begin a new one"
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("size_bytes", "attempts", "failures", "doubtful"), (int,)),
    **dict.fromkeys(("dice", "queued_s", "changed_s"), (float,)),
    "next_try_s": (float, type(None)),
}


class Rows:
    """The rows within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> list[Entry]:
        """Every update, in the order in which they were queued."""
        return [_entry(row) for row in self._connection.execute(f"SELECT {_COLUMNS} FROM updates ORDER BY place")]  # noqa: S608 (no input)

    def unfinished(self) -> list[Entry]:
        """Those that are neither sent nor cancelled, in the order in which they were queued."""
        query = f"SELECT {_COLUMNS} FROM updates WHERE state IN ('waiting', 'sending', 'refused') ORDER BY place"  # noqa: S608
        return [_entry(row) for row in self._connection.execute(query)]

    def get(self, update_id: str) -> Entry | None:
        """One update."""
        query = f"SELECT {_COLUMNS} FROM updates WHERE update_id = ?"  # noqa: S608 (no input)
        row = self._connection.execute(query, (update_id,)).fetchone()
        return None if row is None else _entry(row)

    def withdrawal_of(self, update_id: str) -> Entry | None:
        """The withdrawal of an update that has not arrived yet."""
        return next((one for one in self.unfinished() if one.withdraws == update_id), None)

    def add(self, entry: Entry) -> None:
        """A new update, behind all others."""
        marks = ", ".join("?" * len(_NAMES))
        self._connection.execute(f"INSERT INTO updates ({_COLUMNS}) VALUES ({marks})", astuple(entry))  # noqa: S608

    def put(self, entry: Entry) -> None:
        """Another state of an update that is there."""
        changes = ", ".join(f"{name} = ?" for name in _NAMES)
        values = (*astuple(entry), entry.update_id)
        self._connection.execute(f"UPDATE updates SET {changes} WHERE update_id = ?", values)  # noqa: S608

    def fact(self, name: str) -> str:
        """A text that is kept beside the updates; empty when there is none."""
        found = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found else ""

    def set_fact(self, name: str, value: str) -> None:
        """Keep a text beside the updates."""
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


class OutboxDatabase:
    """The database in a folder that exists; each use opens it anew, so that threads and processes share nothing."""

    def __init__(self, folder: Path, *, wait_s: float = _WAIT_S) -> None:
        self._path, self._wait_s = folder.resolve() / DATABASE_FILE, wait_s

    def create(self) -> None:
        """Make the database unless there is one; StorageError where the disk refuses, or it is of another version."""
        lock = FileLock(self._path.with_suffix(".lock"), timeout=self._wait_s, thread_local=False, mode=0o600)
        try:
            with lock:
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
                with self._transaction("BEGIN IMMEDIATE", wal=True) as connection:
                    _fill(connection)
        except Timeout:
            raise StorageError("expected the outbox to become free, found another process opening it; retry") from None
        except OSError as error:
            raise StorageError(
                f"cannot write {DATABASE_FILE}: {error.strerror or type(error).__name__}; free space or allow it"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Rows]:
        """The rows as they are now; StorageError where the disk refuses or the database is damaged."""
        with self._transaction("BEGIN") as connection:
            yield Rows(connection)

    @contextmanager
    def writing(self) -> Iterator[Rows]:
        """The rows, for this process alone to change; all of it happens, or nothing when the block raises."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield Rows(connection)

    @contextmanager
    def _transaction(self, begin: str, *, wal: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            opened = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, isolation_level=None)
            with closing(opened) as connection:
                connection.text_factory = lambda text: text.decode("utf-8", errors="replace")
                connection.execute(f"PRAGMA busy_timeout = {int(1000 * self._wait_s)}")
                connection.execute("PRAGMA trusted_schema = OFF")
                connection.execute("PRAGMA synchronous = FULL")
                if wal:
                    connection.execute("PRAGMA journal_mode = WAL").fetchone()
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
            raise StorageError(f"expected a sound {DATABASE_FILE}, found it damaged; {_REPAIR}") from error


def _fill(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, 1, _FORMAT):
        raise StorageError(f"expected an outbox of version {_FORMAT}, found {version}; update dafne-dante")
    if version != _FORMAT:
        # Format 1 knew no withdrawals.
        for statement in (_FACTS + _UPDATES if version == 0 else _ASIDE + _UPDATES + _BACK).split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _entry(row: tuple[Any, ...]) -> Entry:
    """A row of which nothing is believed: in a damaged database a column may hold anything."""
    values = dict(zip(_NAMES, row, strict=True))
    for name, value in values.items():
        if not isinstance(value, _TYPES.get(name, (str,))):
            raise StorageError(f"expected a sound {DATABASE_FILE}, found another {name}; {_REPAIR}")
    if values["state"] not in STATES or values["kind"] not in get_args(Kind):
        raise StorageError(f"expected a sound {DATABASE_FILE}, found an unknown state or kind; {_REPAIR}")
    return Entry(**values)


def _told(error: sqlite3.Error) -> str:
    """SQLite's words name neither paths nor values."""
    text = str(error)
    if "locked" in text:
        return "expected the outbox to become free, found another process writing all the time; try again"
    if "full" in text:
        return "cannot write the outbox: the disk is full; free space"
    if "malformed" in text or "not a database" in text or "no such" in text:
        return f"expected a sound {DATABASE_FILE}, found it damaged ({text}); {_REPAIR}"
    return f"cannot use {DATABASE_FILE}: {text}"
