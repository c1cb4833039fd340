"""The outbox: updates that are to leave the site, on its disk before anything is sent.

Terms: the *folder* is readable by its owner only (0700) and holds the database, `files/` with the bytes of every
update that may still leave, named by their SHA-256, and the audit log. Its states are in outbox_states.py.

Invariants
- An update is queued when `queue` returns: its file is flushed before the row that names it is committed, and every
  change of a state is one transaction. Files that no row needs (a crash, sent, cancelled) are deleted, never before.
- An update_id stands for one content and one server for ever: what was sent or cancelled is never queued again.
- Bounded: `Limits` says how many updates may wait, with how many bytes; beyond, nothing new is queued.
- At most one process sends: `sending` holds a lock of the operating system, which ends with its process.
"""

import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import platformdirs
from filelock import FileLock, Timeout

from dafne_dante.config import Settings
from dafne_dante.delta.envelope import open_envelope
from dafne_dante.durable import digest_file, make_folder, write_atomically
from dafne_dante.errors import DeltaError, DeltaReplayError, SettingsError, StorageError
from dafne_dante.federation.audit import AuditLog, Head
from dafne_dante.federation.outbox_database import DATABASE_FILE, OutboxDatabase, Rows
from dafne_dante.federation.outbox_states import Entry, cancel, retry
from dafne_dante.federation.route import checked_address

__all__ = ["Limits", "Outbox", "open_outbox", "outbox_exists", "outbox_folder", "settings_mark"]

_APPLICATION = "dafne-dante"
_FILES = "files"
_HEAD, _SALT = "audit_head", "salt"
_SHORTEST_PREFIX = 4
_TRIGGER = re.compile(r"[a-z][a-z-]{0,31}")


@dataclass(frozen=True)
class Limits:
    """How many updates may be unfinished, and how many bytes their files may have together."""

    updates: int = 500
    size_bytes: int = 8 * 1024**3


class Outbox:
    """The outbox in a folder, made now when there is none; StorageError where the disk refuses.

    `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        wait_s: float = 120.0,
    ) -> None:
        self._folder, self._limits, self._clock = make_folder(folder), limits or Limits(), clock
        self._files = make_folder(folder / _FILES)
        for private in (self._folder, self._files):
            _keep_private(private)
        self._database = OutboxDatabase(folder, wait_s=wait_s)
        self._database.create()
        self.audit = AuditLog(folder, clock=clock)
        with self._database.writing() as rows:
            self._salt = rows.fact(_SALT) or secrets.token_hex(16)
            if not rows.fact(_SALT):
                rows.set_fact(_SALT, self._salt)
            self._tidy(rows)

    @property
    def now_s(self) -> float:
        """Seconds since 1970 by the outbox's clock."""
        return self._clock()

    @property
    def salt(self) -> str:
        """Random text of this outbox, for marks of settings."""
        return self._salt

    def queue(self, content: bytes, *, server: str, dice: float, trigger: str) -> Entry:
        """Keep a delta until it has left; what is queued already comes back as it is.

        Args:
            content: a delta file, with its own signature.
            server: base URL of the server that it is for.
            dice: on held-out cases.
            trigger: what made the site make it, in small letters and hyphens.

        Raises:
            DeltaError: not a delta with a good signature, or one that names no model type.
            DeltaReplayError: its update_id was cancelled, or is that of other bytes or for another server.
            SettingsError: the server's address cannot be used.
            StorageError: the outbox or the disk is full.
        """
        manifest = open_envelope(content, trusted_keys=None).manifest
        if not manifest.model_type:
            raise DeltaError("expected a delta that names its model type, found none; improve with --type")
        if not _TRIGGER.fullmatch(trigger):
            raise SettingsError("expected a trigger in small letters and hyphens, found another text")
        now_s = self._clock()
        entry = Entry(
            update_id=manifest.update_id,
            kind="delta",
            server=checked_address(server),
            model_type=manifest.model_type,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            dice=float(dice),
            trigger=trigger,
            queued_s=now_s,
            changed_s=now_s,
        )
        with self._database.writing() as rows:
            known = rows.get(entry.update_id)
            if known is not None:
                return _same(known, entry)
            self._check_room(rows, entry)
            # Within the transaction, so that nobody takes the file for one that no row needs.
            write_atomically(self._files / entry.sha256, content, mode=0o600)
            rows.add(entry)
        return entry

    def entries(self, *, finished: bool = True) -> list[Entry]:
        """Every update, or those that are neither sent nor cancelled, in the order in which they were queued."""
        with self._database.reading() as rows:
            return rows.all() if finished else rows.unfinished()

    def find(self, name: str) -> Entry:
        """The update of this update_id, or whose update_id alone begins so; DeltaError when there is none."""
        found = [entry for entry in self.entries() if entry.update_id.startswith(name.lower())]
        if len(name) < _SHORTEST_PREFIX or len(found) != 1:
            raise DeltaError(
                f"expected the update_id of one update, or its first {_SHORTEST_PREFIX} or more characters, "
                f"found {len(found)} such updates; see dafne-dante outbox list --all"
            )
        return found[0]

    def take_back(
        self, update_id: str, statement: Callable[[Entry], bytes], *, packed: bool
    ) -> tuple[Entry, Entry | None]:
        """Cancel an update where it still waits and queue its withdrawal unless it certainly never left: both, or none.

        Args:
            statement: what is to be sent of an update that may have left, see withdrawal.py.
            packed: whether it went into a bundle.

        Returns:
            The update as it is then, and its withdrawal, the one that waits already if there is one.

        Raises:
            DeltaError: there is no such update, or it is being sent right now.
            StorageError: the disk refuses.
        """
        with self._database.writing() as rows:
            before = _known(rows, update_id)
            entry = before if before.state in ("sent", "cancelled") else cancel(before, self._clock())
            rows.put(entry)
            may_be_there = entry.state == "sent" or entry.doubtful > 0 or packed
            withdrawal = rows.withdrawal_of(update_id)
            if may_be_there and withdrawal is None:
                withdrawal = self._add_withdrawal(rows, entry, statement(entry))
        if entry != before:
            self._tidy_now()
            self._record_cancelled(entry)
        return entry, withdrawal

    def change(self, update_id: str, transition: Callable[[Entry, float], Entry], head: Head | None = None) -> Entry:
        """Take an update through a transition of outbox_states.py; with it goes the audit log's head, if given.

        Raises:
            DeltaError: there is no such update, or the transition is not for its state; nothing changes.
        """
        with self._database.writing() as rows:
            changed = transition(_known(rows, update_id), self._clock())
            rows.put(changed)
            if head is not None:
                rows.set_fact(_HEAD, f"{head.number} {head.sha256}")
        if changed.state in ("sent", "cancelled"):
            self._tidy_now()
        return changed

    def retry(self, update_id: str) -> Entry:
        """Let an update be tried now, whatever held it."""
        return self.change(update_id, retry)

    def cancel(self, update_id: str) -> Entry:
        """Let an update never leave, and delete its file; DeltaError when it has left or is leaving."""
        cancelled = self.change(update_id, cancel)
        self._record_cancelled(cancelled)
        return cancelled

    def remember(self, head: Head) -> None:
        """Keep the audit log's head, so that records that are cut off are missed."""
        with self._database.writing() as rows:
            rows.set_fact(_HEAD, f"{head.number} {head.sha256}")

    def audit_head(self) -> Head:
        """The audit log's head as far as it is known here."""
        with self._database.reading() as rows:
            number, _, digest = rows.fact(_HEAD).partition(" ")
        return Head(int(number), digest) if number.isascii() and number.isdigit() else Head()

    def file_of(self, entry: Entry) -> Path | None:
        """The file of an update, its bytes checked against their digest; None when it is missing or damaged."""
        path = self._files / entry.sha256
        try:
            return path if path.stat().st_size == entry.size_bytes and digest_file(path) == entry.sha256 else None
        except (OSError, StorageError):
            return None

    @contextmanager
    def sending(self, *, wait_s: float = 0.0) -> Iterator[bool]:
        """The right to send, True within the block; False when another process has it for longer than `wait_s`."""
        lock = FileLock(self._folder / "sending.lock", timeout=wait_s, thread_local=False, mode=0o600)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            raise StorageError(f"cannot lock the outbox: {error.strerror or type(error).__name__}") from error
        try:
            yield True
        finally:
            lock.release()

    def _add_withdrawal(self, rows: Rows, entry: Entry, content: bytes) -> Entry:
        """A withdrawal behind all others; it is small, so that it has room however full the outbox is."""
        now_s = self._clock()
        withdrawal = Entry(
            update_id=str(uuid4()),
            kind="withdrawal",
            server=entry.server,
            model_type=entry.model_type,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            dice=0.0,
            trigger="withdraw",
            queued_s=now_s,
            changed_s=now_s,
            withdraws=entry.update_id,
        )
        write_atomically(self._files / withdrawal.sha256, content, mode=0o600)
        rows.add(withdrawal)
        return withdrawal

    def _record_cancelled(self, entry: Entry) -> None:
        self.remember(self.audit.append("cancelled", {"update_id": entry.update_id, "attempts": entry.attempts}))

    def _check_room(self, rows: Rows, entry: Entry) -> None:
        waiting = rows.unfinished()
        held = sum({one.sha256: one.size_bytes for one in waiting}.values())
        if len(waiting) >= self._limits.updates or held + entry.size_bytes > self._limits.size_bytes:
            raise StorageError(
                f"expected room in the outbox, found {len(waiting)} updates with {held} bytes waiting; send them "
                "(dafne-dante outbox send) or cancel some"
            )

    def _tidy_now(self) -> None:
        with self._database.writing() as rows:
            self._tidy(rows)

    def _tidy(self, rows: Rows) -> None:
        """Delete files that no update needs, within a transaction that nobody else can queue in."""
        needed = {entry.sha256 for entry in rows.unfinished()}
        try:
            for path in self._files.iterdir():
                if path.name not in needed:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot tidy the outbox: {error.strerror or type(error).__name__}") from error


def outbox_folder(settings: Settings) -> Path:
    """Where the outbox is: the platform's place for data, or inside a configuration folder that somebody chose."""
    if settings.folder == Path(platformdirs.user_config_dir(_APPLICATION)):
        return Path(platformdirs.user_data_dir(_APPLICATION)) / "outbox"
    return settings.folder / "outbox"


def open_outbox(settings: Settings) -> Outbox:
    """The site's outbox, made now when there is none."""
    return Outbox(outbox_folder(settings))


def outbox_exists(settings: Settings) -> bool:
    """Whether anything was queued ever; nothing is created."""
    return (outbox_folder(settings) / DATABASE_FILE).is_file()


def settings_mark(settings: Settings, salt: str) -> str:
    """16 hexadecimal digits that change when what a call to the server depends on does; tells nothing of the key."""
    said = (
        *(settings.api_key, settings.proxy, str(settings.ca_bundle), str(settings.chunk_mib)),
        *(settings.seal_key, settings.operator_key, str(settings.allow_full_model)),
    )
    text = "\0".join((salt, *said)).encode()
    # Slow on purpose: the digits lie in the database, and a key may be short.
    return hashlib.pbkdf2_hmac("sha256", text, salt.encode(), 100_000, 8).hex()


def _known(rows: Rows, update_id: str) -> Entry:
    entry = rows.get(update_id)
    if entry is None:
        raise DeltaError("expected an update of the outbox, found none; see dafne-dante outbox list")
    return entry


def _same(known: Entry, entry: Entry) -> Entry:
    """What is queued already, when it is the same and may leave."""
    if known.state == "cancelled":
        raise DeltaReplayError("expected a new update, found one that was cancelled; improve again")
    if (known.sha256, known.server) != (entry.sha256, entry.server):
        raise DeltaReplayError(
            "expected other bytes under another update_id, found an update_id of the outbox; improve again"
        )
    return known


def _keep_private(folder: Path) -> None:
    try:
        if os.name != "nt" and folder.stat().st_mode & 0o077:
            os.chmod(folder, 0o700)
    except OSError as error:
        raise StorageError(f"cannot protect the outbox: {error.strerror or type(error).__name__}") from error
