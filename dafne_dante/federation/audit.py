"""The audit log: what left this site, when, to whom, and what came of it; append-only, in a chain.

Terms: a *record* is one line of `audit.jsonl`, a JSON object in canonical form (delta/canonical.py). It has a `number`
(1, 2, ...), the moment `at` (UTC), an `event` and, as `previous`, the SHA-256 of the line before it, without its line
feed (64 zeros in the first). The *head* is the newest record's number and digest. A *torn* tail is what a crash left
of a line: bytes without a line feed.

Invariants
- Nothing is changed or taken away, except a torn tail, which was never a record; the next record but one says so.
- `append` returns when the record is on the disk. It works under a lock that a dead process does not hold.
- A record holds what was sent about an update, never of whom: no patient data, no paths, no keys.
- The last line must be a record, else nothing is appended: whoever sends stops until a person has looked.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from dafne_dante.delta.canonical import canonical_bytes, parse_canonical
from dafne_dante.durable import write_atomically
from dafne_dante.errors import DeltaFormatError, StorageError

__all__ = ["AUDIT_FILE", "AuditLog", "Head", "Record", "Verification", "utc"]

AUDIT_FILE = "audit.jsonl"
_MAX_LINE_BYTES = 16 * 1024
_FIRST = "0" * 64
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WAIT_S = 60.0
_LAST_MOMENT_S = 253_402_300_799.0  # the year 9999

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Head:
    """Number and SHA-256 of the newest record; (0, 64 zeros) of an empty log."""

    number: int = 0
    sha256: str = _FIRST


@dataclass(frozen=True)
class Verification:
    """What became of recomputing the chain.

    Attributes:
        records: sound ones, from the first line on.
        line: the first line that is wrong, counted from 1; 0 when none is.
        fault: what is wrong there; empty when nothing is.
        torn_bytes: what a crash left of a line at the end, which is no fault.
    """

    records: int
    line: int = 0
    fault: str = ""
    torn_bytes: int = 0


class AuditLog:
    """The log in a folder that exists; `clock` gives seconds since 1970."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time, wait_s: float = _WAIT_S) -> None:
        self._path, self._clock, self._wait_s = folder / AUDIT_FILE, clock, wait_s

    def append(self, event: str, facts: Mapping[str, Any]) -> Head:
        """Add a record and return the new head; what a crash tore before is replaced by a record of that.

        Raises:
            StorageError: the disk refuses, another process is appending all the time, or the last line is no record.
        """
        lock = FileLock(self._path.with_suffix(".lock"), timeout=self._wait_s, thread_local=False, mode=0o600)
        try:
            with lock:
                return self._append(event, facts)
        except Timeout:
            raise StorageError(f"expected {AUDIT_FILE} to become free, found another process writing; retry") from None
        except OSError as error:
            raise StorageError(
                f"cannot write {AUDIT_FILE}: {error.strerror or type(error).__name__}; nothing is sent without it"
            ) from error

    def records(self) -> Iterator[Record]:
        """Every record that can be read, oldest first; StorageError where the disk refuses."""
        for line in self._lines():
            record = _parsed(line)
            if record is not None:
                yield record

    def verify(self, known: Head | None = None) -> Verification:
        """Recompute the chain; `known` is a record that is remembered elsewhere, and must be there."""
        head, known = Head(), known or Head()
        for number, line in enumerate(self._lines(), start=1):
            if not line.endswith(b"\n"):
                torn = len(line)
                return _against(known, head, torn) if torn <= _MAX_LINE_BYTES else _wrong(number, "it is too long")
            fault = _fault(line, head)
            head = Head(number, _digest(line))
            if not fault and number == known.number and head != known:
                fault = "it is another record than the one that the outbox remembers"
            if fault:
                return _wrong(number, fault)
        return _against(known, head, 0)

    def _append(self, event: str, facts: Mapping[str, Any]) -> Head:
        if not self._path.exists():
            write_atomically(self._path, b"", mode=0o600)
        with os.fdopen(os.open(self._path, os.O_RDWR | getattr(os, "O_BINARY", 0)), "r+b") as stream:
            whole_bytes, last, torn = _end(stream)
            head = _head_of(last)
            lines = b""
            if torn:
                head, line = self._next(head, "repaired", {"torn_bytes": len(torn)})
                lines += line
            head, line = self._next(head, event, facts)
            # Written over the torn bytes, not after cutting them: a crash in between leaves a torn tail again.
            stream.seek(whole_bytes)
            stream.write(lines + line)
            stream.flush()
            os.fsync(stream.fileno())
            if len(torn) > len(lines + line):
                stream.truncate(whole_bytes + len(lines + line))
                os.fsync(stream.fileno())
        return head

    def _next(self, head: Head, event: str, facts: Mapping[str, Any]) -> tuple[Head, bytes]:
        own = {"number": head.number + 1, "at": utc(self._clock()), "event": event, "previous": head.sha256}
        line = canonical_bytes({**facts, **own}) + b"\n"
        if len(line) > _MAX_LINE_BYTES:
            raise StorageError(f"expected an audit record of at most {_MAX_LINE_BYTES} bytes, found a longer one")
        return Head(head.number + 1, _digest(line)), line

    def _lines(self) -> Iterator[bytes]:
        """Lines with their line feeds; one that is too long is cut, without a line feed, and the last."""
        try:
            with self._path.open("rb") as stream:
                while line := stream.readline(_MAX_LINE_BYTES + 1):
                    yield line
                    if not line.endswith(b"\n"):
                        return
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"cannot read {AUDIT_FILE}: {error.strerror or type(error).__name__}") from error


def utc(seconds: float) -> str:
    """A moment as people and programs read it, for example 2026-11-23T01:05:07Z; `seconds` since 1970."""
    moment = datetime.fromtimestamp(min(max(seconds, 0.0), _LAST_MOMENT_S), timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _end(stream: IO[bytes]) -> tuple[int, bytes, bytes]:
    """Bytes of whole lines, the last whole line, and what is torn after it."""
    size = stream.seek(0, os.SEEK_END)
    begin = max(0, size - 3 * _MAX_LINE_BYTES)
    stream.seek(begin)
    tail = stream.read(size - begin)
    feed = tail.rfind(b"\n")
    if feed < 0 and begin > 0:
        raise _damaged("its end is no record")
    whole, torn = tail[: feed + 1], tail[feed + 1 :]
    if len(torn) > _MAX_LINE_BYTES:
        raise _damaged("its end is no record")
    return begin + len(whole), whole[whole[:-1].rfind(b"\n") + 1 :], torn


def _head_of(last: bytes) -> Head:
    if not last:
        return Head()
    record = _parsed(last)
    if record is None or type(record.get("number")) is not int:
        raise _damaged("its last line is no record")
    return Head(record["number"], _digest(last))


def _parsed(line: bytes) -> Record | None:
    """The record in a line; None when it is none."""
    if not line.endswith(b"\n") or len(line) > _MAX_LINE_BYTES:
        return None
    try:
        return parse_canonical(line[:-1], "a record")
    except DeltaFormatError:
        return None


def _fault(line: bytes, before: Head) -> str:
    """What is wrong with a line behind `before`; empty when nothing is."""
    record = _parsed(line)
    if record is None:
        return "it is no record in canonical form"
    if record.get("number") != before.number + 1 or type(record["number"]) is not int:
        return f"expected record {before.number + 1}, found another number"
    if record.get("previous") != before.sha256:
        return "the record before it was changed, or it was written anew" if before.number else "it is not the first"
    return ""


def _against(known: Head, head: Head, torn_bytes: int) -> Verification:
    if head.number < known.number:
        return _wrong(head.number + 1, f"records up to {known.number}, which the outbox remembers, are missing")
    return Verification(head.number, torn_bytes=torn_bytes)


def _wrong(line: int, fault: str) -> Verification:
    return Verification(line - 1, line, fault)


def _damaged(what: str) -> StorageError:
    return StorageError(
        f"expected {AUDIT_FILE} to end with a record, found that {what}; nothing is sent until somebody has looked: "
        "dafne-dante audit verify"
    )


def _digest(line: bytes) -> str:
    return hashlib.sha256(line[:-1]).hexdigest()
