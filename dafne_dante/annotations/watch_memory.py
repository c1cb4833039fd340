"""What was seen in watch folders and what became of it, kept from one look to the next.

Terms
- The *fingerprint* of a study is an HMAC of its folder and the facts of all its files: a study that changed, or gained
  or lost a file, has another one, and is new.
- A study is *seen* until it was *kept* (stored as a case) or *refused* (it cannot be read as it is).
- A *policy* is a digest of how studies are read; what was refused under another policy may be tried again.

Invariants
- One SQLite database, readable by its owner only. In clear are HMACs and counters; times and reasons are sealed.
- Losing it costs time, never a case: studies are offered again, and a store replaces what it has. So a database that
  is damaged is put away and begun anew.
- It holds what the last look at each folder found, and nothing older than KEPT_LOOKS looks that were incomplete.
"""

import hmac
import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dafne_dante.annotations.store.sealing import seal_blob, unseal_blob
from dafne_dante.annotations.watch_database import WatchDatabase
from dafne_dante.annotations.watched_files import FileFacts
from dafne_dante.errors import StorageError, TrustError

__all__ = ["KEPT_LOOKS", "FolderState", "StudyState", "WatchMemory"]

KEPT_LOOKS = 30
_PUT_STUDY = (
    "INSERT INTO studies VALUES (?, ?, ?, ?) "
    "ON CONFLICT (fingerprint) DO UPDATE SET look = excluded.look, state = excluded.state"
)


@dataclass(frozen=True)
class StudyState:
    """What is known of one fingerprint.

    Attributes:
        kind: seen, kept or refused.
        since: when it was first seen, in seconds since 1970 on this machine's clock.
        moving: it appeared so soon after an earlier look that it was certainly changed just then.
        reason: why it was refused.
        policy: under which it was refused.
    """

    kind: Literal["seen", "kept", "refused"]
    since: float
    moving: bool = False
    reason: str = ""
    policy: str = ""


@dataclass(frozen=True)
class FolderState:
    """What is known of one watch folder; times in seconds since 1970 on this machine's clock.

    Attributes:
        looked: when it was last looked at.
        settled: its digest when nothing was left to do in it; empty while something is.
        searched: when its studies were last searched.
    """

    looked: float
    settled: str = ""
    searched: float = 0.0


class WatchMemory:
    """The memory in the file `path`, which is made when it is not there; `key` is the site's secret.

    Raises (this and every method):
        StorageError: the disk refuses, or another process was writing all the time.
        TrustError: an empty key.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        if not key:
            raise TrustError("expected a secret key for the memory of watch folders, found an empty one")
        self._database = WatchDatabase(path)
        self._names, self._seal = (hmac.digest(key, b"dafne-dante watch 1: " + use, "sha256") for use in (b"a", b"b"))

    def tag(self, folder: Path) -> bytes:
        """What a watch folder is called here."""
        return self._hmac(b"folder", os.fsencode(folder.absolute()))

    def fingerprint(self, tag: bytes, files: Iterable[FileFacts], purpose: str = "study") -> bytes:
        """What a study of these files, in the folder of that tag, is called here."""
        facts = (f"{one.size} {one.modified_ns} ".encode() + os.fsencode(one.path) for one in sorted(files))
        return self._hmac(purpose.encode(), tag, *facts)

    def folder(self, tag: bytes) -> FolderState | None:
        """What is known of the folder; None when nothing is."""
        with self._database.transaction(writing=False) as connection:
            return self._folder(connection, tag)[1]

    def count(self, tag: bytes) -> int:
        """How many studies of the folder are remembered."""
        with self._database.transaction(writing=False) as connection:
            return int(connection.execute("SELECT count(*) FROM studies WHERE tag = ?", (tag,)).fetchone()[0])

    def look(
        self, tag: bytes, fingerprints: Sequence[bytes], now: float, *, quiet_s: float, complete: bool
    ) -> list[StudyState]:
        """Note a look at the folder, and give what is known of each study that it found.

        What a complete look did not find is forgotten.
        """
        with self._database.transaction(writing=True) as connection:
            number, before = self._folder(connection, tag)
            moving = before is not None and 0 <= now - before.looked < quiet_s
            states = []
            for fingerprint in fingerprints:
                state = self._study(connection, fingerprint) or StudyState("seen", now, moving)
                state = replace(state, since=min(state.since, now))  # the clock may have been set back
                self._put(connection, fingerprint, tag, number + 1, state)
                states.append(state)
            oldest = number + 1 if complete else number + 1 - KEPT_LOOKS
            connection.execute("DELETE FROM studies WHERE tag = ? AND look < ?", (tag, oldest))
            self._put_folder(connection, tag, number + 1, FolderState(now, searched=now))
        return states

    def keep(self, tag: bytes, fingerprint: bytes) -> None:
        """The study became a case, which is stored."""
        self._set(tag, fingerprint, StudyState("kept", 0.0))

    def refuse(self, tag: bytes, fingerprint: bytes, reason: str, policy: str) -> None:
        """The study cannot be read as it is."""
        self._set(tag, fingerprint, StudyState("refused", 0.0, reason=reason, policy=policy))

    def note(self, tag: bytes, state: FolderState) -> None:
        """Replace what is known of the folder."""
        with self._database.transaction(writing=True) as connection:
            self._put_folder(connection, tag, self._folder(connection, tag)[0], state)

    def _set(self, tag: bytes, fingerprint: bytes, state: StudyState) -> None:
        with self._database.transaction(writing=True) as connection:
            self._put(connection, fingerprint, tag, self._folder(connection, tag)[0], state)

    def _folder(self, connection: sqlite3.Connection, tag: bytes) -> tuple[int, FolderState | None]:
        """How often the folder was looked at, and its state."""
        row = connection.execute("SELECT look, state FROM folders WHERE tag = ?", (tag,)).fetchone()
        fields = self._opened(tag, row[1]) if row else None
        return (row[0] if row and isinstance(row[0], int) else 0), FolderState(**fields) if fields else None

    def _study(self, connection: sqlite3.Connection, fingerprint: bytes) -> StudyState | None:
        row = connection.execute("SELECT state FROM studies WHERE fingerprint = ?", (fingerprint,)).fetchone()
        fields = self._opened(fingerprint, row[0]) if row else None
        return StudyState(**fields) if fields else None

    def _opened(self, context: bytes, blob: object) -> dict[str, Any] | None:
        """What was sealed; None where the disk has spoilt it. What opens was written by us: no further check."""
        try:
            content = unseal_blob(self._seal, context, blob if isinstance(blob, bytes) else b"", "watch memory")
        except StorageError:
            return None
        fields: dict[str, Any] = json.loads(content)
        return fields

    def _hmac(self, *parts: bytes) -> bytes:
        """Of the parts, each with its length, so that no two lists of parts look alike."""
        return hmac.digest(self._names, b"".join(len(part).to_bytes(8, "big") + part for part in parts), "sha256")

    def _put(
        self, connection: sqlite3.Connection, fingerprint: bytes, tag: bytes, look: int, state: StudyState
    ) -> None:
        sealed = seal_blob(self._seal, fingerprint, json.dumps(asdict(state)).encode())
        connection.execute(_PUT_STUDY, (fingerprint, tag, look, sealed))

    def _put_folder(self, connection: sqlite3.Connection, tag: bytes, look: int, state: FolderState) -> None:
        sealed = seal_blob(self._seal, tag, json.dumps(asdict(state)).encode())
        connection.execute("INSERT OR REPLACE INTO folders VALUES (?, ?, ?)", (tag, look, sealed))
