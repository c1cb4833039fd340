"""Who may use the embedded server, and what happened on it, in one SQLite file.

Terms: an API key is `<8 characters>.<32 characters>`; the first part is its public id, by which the row is found, the
second is the secret. A *right* is for one type: `read` (list and fetch its models), `upload` (send updates), or `merge`
(the operator's calls, which include both).

Invariants: only a salted scrypt hash of a key is stored, so the file gives no key away; a key is shown once, when it
is made; a wrong key costs the same time whether its id exists or not; a key that was revoked or replaced is refused at
once, also by a server that runs; the log never holds a key, and is bounded.
"""

import hashlib
import hmac
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.durable import make_folder
from dafne_dante.errors import SettingsError, StorageError

__all__ = ["ACCOUNTS_FILE", "RIGHTS", "Account", "Accounts"]

ACCOUNTS_FILE = "accounts.sqlite"
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_ID_BYTES, _SECRET_BYTES, _SALT_BYTES = 4, 24, 16
_NO_ID = "", ""
_MAX_LOG_CHARACTERS = 500
_MAX_LOG_LINES = 100_000
_KEY = re.compile(r"([0-9a-f]{8})\.([A-Za-z0-9_-]{32})")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, key_id TEXT NOT NULL UNIQUE,
    salt BLOB NOT NULL, hash BLOB NOT NULL, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rights (
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE, model_type TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('read', 'upload', 'merge')), PRIMARY KEY (user_id, model_type, kind));
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL, user TEXT NOT NULL, call TEXT NOT NULL, detail TEXT NOT NULL);
"""
# Before there were three rights, `access` was the one to read and to upload.
_FROM_PERMISSIONS = (
    "INSERT OR IGNORE INTO rights SELECT user_id, model_type, 'read' FROM permissions WHERE kind = 'access'",
    "INSERT OR IGNORE INTO rights SELECT user_id, model_type, 'upload' FROM permissions WHERE kind = 'access'",
    "INSERT OR IGNORE INTO rights SELECT user_id, model_type, 'merge' FROM permissions WHERE kind = 'merge'",
    "DROP TABLE permissions",
)
RIGHTS = ("read", "upload", "merge")
"""What a user may do with a type."""


@dataclass(frozen=True)
class Account:
    """A user with the types that they may read, upload to, and merge."""

    name: str
    read: frozenset[str]
    upload: frozenset[str]
    merge: frozenset[str]


class Accounts:
    """The file `accounts.sqlite` in the server's root; StorageError where the disk refuses."""

    def __init__(self, root: Path) -> None:
        self._path = make_folder(root) / ACCOUNTS_FILE
        try:
            # Before SQLite does, which would let others read it.
            self._path.touch(mode=0o600)
            self._path.chmod(0o600)
        except OSError as error:
            raise StorageError(
                f"cannot create {ACCOUNTS_FILE}: {error.strerror}; check the folder's permissions"
            ) from error
        self._verified: dict[bytes, str] = {}
        self._lock = threading.Lock()
        with self._connect() as connection:
            connection.executescript(_SCHEMA)
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'permissions'").fetchone():
                for statement in _FROM_PERMISSIONS:
                    connection.execute(statement)

    def add_user(
        self,
        name: str,
        *,
        access: Sequence[str] = (),
        read: Sequence[str] = (),
        upload: Sequence[str] = (),
        merge: Sequence[str] = (),
    ) -> str:
        """Add a user and return their API key, which cannot be shown again.

        `access` names types to read and to upload to; who merges a type may do all with it.

        Raises:
            SettingsError: the name is taken, or not of letters, digits and hyphens.
        """
        if not _NAME.fullmatch(name):
            raise SettingsError("expected a user's name of 1 to 64 letters, digits and hyphens; choose another")
        granted = {"read": {*access, *read, *merge}, "upload": {*access, *upload, *merge}, "merge": {*merge}}
        key, stored = _new_key()
        try:
            with self._connect() as connection:
                query = "INSERT INTO users(key_id, salt, hash, name, created) VALUES (?,?,?,?,?)"
                user_id = connection.execute(query, (*stored, name, int(time.time()))).lastrowid
                rows = [(user_id, model_type, kind) for kind, types in granted.items() for model_type in types]
                connection.executemany("INSERT INTO rights VALUES (?,?,?)", rows)
        except sqlite3.IntegrityError:
            raise SettingsError(f"expected a new user's name, found that {name} exists; choose another") from None
        return key

    def rotate(self, name: str) -> str:
        """Give a user another key in the place of theirs, and return it; SettingsError for an unknown name."""
        key, stored = _new_key()
        with self._connect() as connection:
            query = "UPDATE users SET key_id = ?, salt = ?, hash = ? WHERE name = ?"
            if connection.execute(query, (*stored, name)).rowcount == 0:
                raise _unknown(name)
        self._forget_keys()
        return key

    def permit(self, name: str, model_type: str, rights: Collection[str]) -> None:
        """Let a user have these rights for a type and no others; merge includes the other two.

        Raises:
            SettingsError: an unknown name, or another word than those of RIGHTS.
        """
        if not set(rights) <= set(RIGHTS):
            raise SettingsError(f"expected rights among {', '.join(RIGHTS)}, found another word")
        kinds = RIGHTS if "merge" in rights else sorted(set(rights))
        with self._connect() as connection:
            row = connection.execute("SELECT id FROM users WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise _unknown(name)
            connection.execute("DELETE FROM rights WHERE user_id = ? AND model_type = ?", (row[0], model_type))
            rows = [(row[0], model_type, kind) for kind in kinds]
            connection.executemany("INSERT INTO rights VALUES (?,?,?)", rows)

    def list_users(self) -> list[Account]:
        """All users by name."""
        with self._connect() as connection:
            names = [str(row[0]) for row in connection.execute("SELECT name FROM users ORDER BY name")]
        return [self._account(name) for name in names]

    def revoke(self, name: str) -> None:
        """Remove a user and their key; SettingsError for an unknown name."""
        with self._connect() as connection:
            if connection.execute("DELETE FROM users WHERE name = ?", (name,)).rowcount == 0:
                raise _unknown(name)
        self._forget_keys()

    def find(self, api_key: str) -> Account | None:
        """The user with this key, None for any other text."""
        # Anything that is no key at all takes the same path, as an id that nobody has.
        key = _KEY.fullmatch(api_key)
        key_id, secret = key.groups() if key else _NO_ID
        with self._connect() as connection:
            row = connection.execute("SELECT name, salt, hash FROM users WHERE key_id = ?", (key_id,)).fetchone()
        name, salt, expected = row or ("", b"\0" * _SALT_BYTES, b"")
        # A key that was right once is remembered by its digest, since scrypt takes tens of milliseconds by design.
        digest = hashlib.sha256(secret.encode("ascii") + expected).digest()
        with self._lock:
            remembered = self._verified.get(digest) == name and bool(row)
        if not remembered and not hmac.compare_digest(_hash(secret, salt), expected):
            return None
        with self._lock:
            self._verified[digest] = name
        return self._account(name)

    def log(self, user: str, call: str, detail: str) -> None:
        """Append a line, and drop the oldest beyond 100,000; anything in it that looks like a key is left out."""
        detail = _KEY.sub("(key)", detail)
        clean = "".join(character if character.isprintable() else " " for character in detail)[:_MAX_LOG_CHARACTERS]
        with self._connect() as connection:
            row = (int(time.time()), user, call, clean)
            cursor = connection.execute("INSERT INTO log(time, user, call, detail) VALUES (?,?,?,?)", row)
            connection.execute("DELETE FROM log WHERE id <= ?", ((cursor.lastrowid or 0) - _MAX_LOG_LINES,))

    def logged(self) -> list[tuple[int, str, str, str]]:
        """All log lines: seconds since 1970, user, call, detail."""
        with self._connect() as connection:
            return [tuple(row) for row in connection.execute("SELECT time, user, call, detail FROM log ORDER BY id")]

    def _forget_keys(self) -> None:
        with self._lock:
            self._verified.clear()

    def _account(self, name: str) -> Account:
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT model_type, kind FROM rights JOIN users ON users.id = user_id WHERE name = ?", (name,)
            ).fetchall()
        read, upload, merge = (frozenset(one for one, found in rows if found == kind) for kind in RIGHTS)
        return Account(name, read, upload, merge)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """One transaction; the connection is closed afterwards, so that threads never share one."""
        try:
            connection = sqlite3.connect(self._path, timeout=30)
            try:
                connection.execute("PRAGMA foreign_keys = ON")
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise StorageError(
                f"cannot use {ACCOUNTS_FILE}: {error}; check the folder's permissions and space"
            ) from error


def _new_key() -> tuple[str, tuple[str, bytes, bytes]]:
    """A new API key, and what is stored of it: its id, a salt and the hash."""
    # Hexadecimal: the id is typed by people and never looks like an option.
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"{key_id}.{secret}", (key_id, salt, _hash(secret, salt))


def _unknown(name: str) -> SettingsError:
    return SettingsError(f"expected a user's name, found no {name}; list them first")


def _hash(secret: str, salt: bytes) -> bytes:
    """scrypt with OWASP's interactive parameters (N = 2^14, r = 8, p = 5)."""
    return hashlib.scrypt(secret.encode("ascii"), salt=salt, n=2**14, r=8, p=5, dklen=32)
