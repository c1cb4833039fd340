"""The secret of a site's case store: made once, found again, never replaced.

Terms
- The *key* is 256 random bits. What is used are keys derived from it (HKDF-SHA256, RFC 5869), one for each purpose.
- The *key file* `case_key` in the configuration folder says where the key is: in the operating system's keyring under
  a random name, or, on a machine without one, in this file itself.

Invariants
- The key file is made whole or not at all, readable by its owner only, and never overwritten: of two processes that
  make a key at the same time, both go on with the one that was there first.
- A key is made only where there is no store yet. A lost key is told and never replaced by a new one, which would
  open nothing.
- Where the key file says "keyring", only the keyring counts: one that is locked is told, and no second key is made.
"""

import base64
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import StorageError, TrustError
from dafne_dante.keychain import Keychain

__all__ = ["KEY_FILE", "StoreKey", "ensure_store_key", "load_store_key"]

KEY_FILE = "case_key"
_HEAD = "dafne-dante-case-key 1"
_KEY_BYTES = 32
_MAX_FILE_BYTES = 4096

Place = Literal["keyring", "file"]


@dataclass(frozen=True)
class StoreKey:
    """The secret of one store.

    Attributes:
        secret: 32 bytes, never shown.
        place: where it is kept.
        note: what a person should be told, once, when it was made; else empty.
    """

    secret: bytes = field(repr=False)
    place: Place = "file"
    note: str = ""

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose; those of another purpose tell nothing of them."""
        return HKDF(SHA256(), 32, salt=None, info=f"dafne-dante case store 1: {purpose}".encode()).derive(self.secret)

    @property
    def case_ids(self) -> bytes:
        """The key of the pseudonyms of cases, for `annotations.reading.Reading.key`."""
        return self.derive("case ids")


def load_store_key(folder: Path, keychain: Keychain | None) -> StoreKey | None:
    """The key that the configuration folder knows of; None when it knows of none.

    Raises:
        TrustError: others can read the key file, it is malformed, or the keyring does not have the key.
        StorageError: the file cannot be read, or the keyring refuses.
    """
    path = folder / KEY_FILE
    if not path.exists():
        return None
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise TrustError(f"expected {KEY_FILE} to be its owner's only, found others allowed; chmod 600 it")
    place, text = _parsed(read_bounded(path, max_bytes=_MAX_FILE_BYTES))
    if place == "file":
        return StoreKey(_decoded(text, KEY_FILE), "file")
    if keychain is None:
        raise TrustError(
            "expected the key of the case store in the operating system's keyring, found no keyring; log in to the "
            "desktop, or run as the user who made the store"
        )
    kept = keychain.get(text)
    if kept is None:
        raise TrustError(
            "expected the key of the case store in the operating system's keyring, found none; log in as the user "
            "who made the store, or restore the keyring"
        )
    return StoreKey(_decoded(kept, "the keyring"), "keyring")


def ensure_store_key(folder: Path, keychain: Keychain | None, *, store_exists: bool) -> StoreKey:
    """The key of the store; made now where there is neither a key nor a store.

    Args:
        folder: the configuration folder.
        keychain: the operating system's keyring; None when there is none.
        store_exists: whether something was sealed already.

    Raises:
        TrustError: there is a store, and its key is lost; or as for `load_store_key`.
        StorageError: the folder is not writable, or the keyring refuses to give the key.
    """
    found = load_store_key(folder, keychain)
    if found is not None:
        return found
    if store_exists:
        raise TrustError(
            f"expected the key of the case store ({KEY_FILE} in the configuration folder), found none; restore it from "
            "a copy: without it nobody can read the store, which was left as it is"
        )
    return _create(folder, keychain)


def _create(folder: Path, keychain: Keychain | None) -> StoreKey:
    secret, name = secrets.token_bytes(_KEY_BYTES), secrets.token_hex(8)
    reason = _keep_in(keychain, name, _encoded(secret))
    place: Place = "file" if reason else "keyring"
    text = _encoded(secret) if reason else name
    if not _claim(make_folder(folder) / KEY_FILE, f"{_HEAD}\n{place} {text}\n".encode("ascii")):
        if keychain is not None and place == "keyring":
            keychain.remove(name)
        return ensure_store_key(folder, keychain, store_exists=True)
    note = f"{reason}, so the key of the case store is in {KEY_FILE}, readable by you only" if reason else ""
    return StoreKey(secret, place, note)


def _keep_in(keychain: Keychain | None, name: str, text: str) -> str:
    """Put the text into the keyring and read it back; why that failed, in words, empty when it did not."""
    if keychain is None:
        return "this machine has no keyring that is fit for secrets"
    try:
        keychain.put(name, text)
        same = keychain.get(name) == text
    except StorageError:
        return "the operating system's keyring refused"
    return "" if same else "the operating system's keyring forgot at once"


def _claim(path: Path, content: bytes) -> bool:
    """Make the file with its whole content unless there is one; whether it was made."""
    whole = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    write_atomically(whole, content, mode=0o600)
    try:
        # Both refuse to replace: rename on Windows, and link elsewhere.
        if os.name == "nt":
            whole.rename(path)
        else:
            os.link(whole, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise StorageError(
            f"cannot write {path.name}: {error.strerror or type(error).__name__}; free space or choose another folder"
        ) from error
    finally:
        whole.unlink(missing_ok=True)
    return True


def _parsed(content: bytes) -> tuple[str, str]:
    """Place and text of a key file; TrustError when it is malformed."""
    lines = content.decode("ascii", errors="replace").split("\n")
    words = lines[1].split(" ") if len(lines) == 3 and lines[0] == _HEAD and not lines[2] else []
    if len(words) != 2 or words[0] not in ("file", "keyring") or not words[1]:
        raise TrustError(f"expected {KEY_FILE} as dafne-dante writes it, found another content; restore a copy of it")
    return words[0], words[1]


def _encoded(secret: bytes) -> str:
    return base64.b64encode(secret).decode("ascii")


def _decoded(text: str, source: str) -> bytes:
    try:
        secret = base64.b64decode(text, validate=True)
    except ValueError:
        secret = b""
    if len(secret) != _KEY_BYTES:
        raise TrustError(f"expected a key of {_KEY_BYTES} bytes in {source}, found another content; restore a copy")
    return secret
