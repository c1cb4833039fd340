"""The jobs' database: one row a job, in one SQLite file, and the slices that wait for one.

Invariants
- A row is written in one transaction, whole; the database itself allows one running and one queued job of a model
  type at most. What is stored is checked when it is read.
- WAL, so that a list can be read while another process writes; synchronous=FULL. Where the folder's disk cannot do WAL
  (a network drive), SQLite keeps its rollback journal, as durably.
- One process writes at a time, within `writing` (BEGIN IMMEDIATE), which the operating system ends with the process.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args

from filelock import FileLock, Timeout

from dafne_dante.errors import StorageError
from dafne_dante.plugin.job_states import STATES, Job, Trigger, Wish, options_from_json, options_to_json

__all__ = ["DATABASE_FILE", "JobRows", "JobsDatabase"]

DATABASE_FILE = "jobs.sqlite"
_FORMAT = 1
_Number = TypeVar("_Number", int, float)
_NAMES = tuple(item.name for item in fields(Job))
_COLUMNS = ", ".join(_NAMES)
_SCHEMA = """
CREATE TABLE jobs (
    place INTEGER PRIMARY KEY, job_id TEXT NOT NULL UNIQUE, model_type TEXT NOT NULL,
    trigger TEXT NOT NULL CHECK (trigger IN ('saved', 'nightly', 'button')),
    created_s REAL NOT NULL, changed_s REAL NOT NULL, not_before_s REAL NOT NULL, options TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    told TEXT NOT NULL, progress TEXT NOT NULL, holder TEXT NOT NULL, heartbeat_s REAL NOT NULL,
    attempts INTEGER NOT NULL, wish TEXT NOT NULL CHECK (wish IN ('', 'keep', 'drop')),
    learned_until_ns INTEGER NOT NULL
);
CREATE UNIQUE INDEX one_running ON jobs (model_type) WHERE state = 'running';
CREATE UNIQUE INDEX one_queued ON jobs (model_type) WHERE state = 'queued';
CREATE INDEX by_state ON jobs (state, place);
"""
_WAITING = """
CREATE TABLE IF NOT EXISTS new_slices (
    model_type TEXT PRIMARY KEY, slices INTEGER NOT NULL, counted_s REAL NOT NULL
)"""
_REPAIR = "move the jobs' folder away and begin a new one"
_TYPES: dict[str, type] = {
    **dict.fromkeys(("attempts", "learned_until_ns"), int),
    **dict.fromkeys(("created_s", "changed_s", "not_before_s", "heartbeat_s"), float),
}


class JobRows:
    """The rows within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> list[Job]:
        """Every job, in the order in which they were asked for."""
        return [_job(row) for row in self._connection.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY place")]  # noqa: S608 (no input)

    def unfinished(self) -> list[Job]:
        """Those that are queued or running."""
        query = f"SELECT {_COLUMNS} FROM jobs WHERE state IN ('queued', 'running') ORDER BY place"  # noqa: S608
        return [_job(row) for row in self._connection.execute(query)]

    def get(self, job_id: str) -> Job | None:
        """One job."""
        query = f"SELECT {_COLUMNS} FROM jobs WHERE job_id = ?"  # noqa: S608 (no input)
        row = self._connection.execute(query, (job_id,)).fetchone()
        return None if row is None else _job(row)

    def of_type(self, model_type: str, state: str) -> Job | None:
        """The newest job of a model type in a state."""
        query = f"SELECT {_COLUMNS} FROM jobs WHERE model_type = ? AND state = ? ORDER BY place DESC LIMIT 1"  # noqa: S608
        row = self._connection.execute(query, (model_type, state)).fetchone()
        return None if row is None else _job(row)

    def newest_s(self, model_type: str) -> float:
        """When the newest job of a model type was asked for; 0 where none was."""
        query = "SELECT MAX(created_s) FROM jobs WHERE model_type = ?"
        (found,) = self._connection.execute(query, (model_type,)).fetchone()
        return _checked(found or 0.0, float)

    def new_slices(self, model_type: str) -> tuple[int, float]:
        """Slices that were counted for a model type and no job was asked for, and when the last of them was."""
        query = "SELECT slices, counted_s FROM new_slices WHERE model_type = ?"
        row = self._connection.execute(query, (model_type,)).fetchone()
        return (0, 0.0) if row is None else (_checked(row[0], int), _checked(row[1], float))

    def put_new_slices(self, model_type: str, slices: int, counted_s: float) -> None:
        """Remember them."""
        query = "INSERT OR REPLACE INTO new_slices (model_type, slices, counted_s) VALUES (?, ?, ?)"
        self._connection.execute(query, (model_type, slices, counted_s))

    def add(self, job: Job) -> None:
        """A new job, behind all others."""
        marks = ", ".join("?" * len(_NAMES))
        self._connection.execute(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({marks})", _values(job))  # noqa: S608

    def put(self, job: Job) -> None:
        """Another state of a job that is there."""
        changes = ", ".join(f"{name} = ?" for name in _NAMES)
        self._connection.execute(f"UPDATE jobs SET {changes} WHERE job_id = ?", (*_values(job), job.job_id))  # noqa: S608


class JobsDatabase:
    """The database in a folder that exists; each use opens it anew, so that threads and processes share nothing."""

    def __init__(self, folder: Path, *, wait_s: float) -> None:
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
            raise StorageError("expected the jobs to become free, found another process opening them; retry") from None
        except OSError as error:
            raise StorageError(
                f"cannot write {DATABASE_FILE}: {error.strerror or type(error).__name__}; free space or allow it"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[JobRows]:
        """The rows as they are now; StorageError where the disk refuses or the database is damaged."""
        with self._transaction("BEGIN") as connection:
            yield JobRows(connection)

    @contextmanager
    def writing(self) -> Iterator[JobRows]:
        """The rows, for this process alone to change; all of it happens, or nothing when the block raises."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield JobRows(connection)

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
    if version not in (0, _FORMAT):
        raise StorageError(f"expected jobs of version {_FORMAT}, found {version}; update dafne-dante")
    if version == 0:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
    connection.execute(_WAITING)  # not there in databases of an older program, which leaves it alone


def _values(job: Job) -> tuple[Any, ...]:
    found = {name: getattr(job, name) for name in _NAMES}
    return tuple({**found, "options": options_to_json(job.options)}.values())


def _job(row: tuple[Any, ...]) -> Job:
    """A row of which nothing is believed: in a damaged database a column may hold anything."""
    values = dict(zip(_NAMES, row, strict=True))
    for name, value in values.items():
        if not isinstance(value, _TYPES.get(name, str)):
            raise StorageError(f"expected a sound {DATABASE_FILE}, found another {name}; {_REPAIR}")
    known = values["state"] in STATES and values["trigger"] in get_args(Trigger) and values["wish"] in get_args(Wish)
    if not known:
        raise StorageError(f"expected a sound {DATABASE_FILE}, found an unknown state; {_REPAIR}")
    return Job(**{**values, "options": options_from_json(values["options"])})


def _checked(value: Any, kind: type[_Number]) -> _Number:
    if not isinstance(value, kind):
        raise StorageError(f"expected a sound {DATABASE_FILE}, found another number; {_REPAIR}")
    return value


def _told(error: sqlite3.Error) -> str:
    """SQLite's words name neither paths nor values."""
    text = str(error)
    if "locked" in text:
        return "expected the jobs to become free, found another process writing all the time; try again"
    if "full" in text:
        return "cannot write the jobs: the disk is full; free space"
    if "readonly" in text:
        return f"cannot write {DATABASE_FILE}: it may only be read; allow writing to the jobs' folder"
    if "malformed" in text or "not a database" in text or "no such" in text:
        return f"expected a sound {DATABASE_FILE}, found it damaged ({text}); {_REPAIR}"
    return f"cannot use {DATABASE_FILE}: {text}"
