"""The SQLite database behind the memory of watch folders: made, opened for one transaction at a time, begun anew.

Invariants: readable by its owner only; each use opens it anew, so that threads and processes share nothing; one that
is damaged when it is opened for the first time is put away beside itself and a new one is made; SQLite's own errors
become a StorageError that names no folder.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dafne_dante.durable import make_folder, move_file
from dafne_dante.errors import StorageError

__all__ = ["WatchDatabase"]

_WAIT_S = 30.0
_FORMAT = 1
_SCHEMA = (
    "CREATE TABLE folders (tag BLOB PRIMARY KEY, look INTEGER NOT NULL, state BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE studies (fingerprint BLOB PRIMARY KEY, tag BLOB NOT NULL, look INTEGER NOT NULL, "
    "state BLOB NOT NULL) WITHOUT ROWID",
    "CREATE INDEX studies_of_folder ON studies (tag)",
)


class WatchDatabase:
    """The database in the file `path`; StorageError where the disk refuses or another process writes all the time."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        self._path = path.resolve()
        try:
            self._create()
        except sqlite3.OperationalError as error:
            raise _refused(error) from error
        except sqlite3.DatabaseError:
            move_file(self._path, self._path.with_name(f"{self._path.name}.damaged"))
            self._start_anew()

    @contextmanager
    def transaction(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        """A connection whose changes all happen, or none when the block raises."""
        try:
            with self._connection(writing=writing) as connection:
                yield connection
        except sqlite3.Error as error:
            raise _refused(error) from error

    def _start_anew(self) -> None:
        try:
            self._create()
        except sqlite3.Error as error:
            raise _refused(error) from error

    def _create(self) -> None:
        """Make the tables unless they are there; sqlite3.DatabaseError for a file that is not our database."""
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StorageError(
                f"cannot write {self._path.name}: {error.strerror or type(error).__name__}; choose another folder"
            ) from error
        with self._connection(writing=True) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_FORMAT}")
            elif version != _FORMAT or connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("of another version, or damaged")

    @contextmanager
    def _connection(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        opened = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, isolation_level=None)
        with closing(opened) as connection:
            connection.text_factory = lambda text: text.decode("utf-8", errors="replace")
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * _WAIT_S)}")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")


def _refused(error: sqlite3.Error) -> StorageError:
    """SQLite's words name neither paths nor values."""
    if "locked" in str(error):
        return StorageError("expected the memory of watch folders to become free, found it in use; try again")
    return StorageError(f"cannot use the memory of watch folders: {error}; free space, or delete it to begin anew")
