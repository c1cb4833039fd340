"""A secret key in a file of its own: PEM, PKCS#8, readable by its owner only.

Invariants: a key file is never overwritten; of two processes that make one at the same time, one is told; nothing of
a file's content gets into a message.
"""

import os
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import StorageError, TrustError

__all__ = ["create_key_file", "read_key_file"]

_MAX_BYTES = 16 * 1024

Key = TypeVar("Key", Ed25519PrivateKey, X25519PrivateKey)


def create_key_file(path: Path, key: Ed25519PrivateKey | X25519PrivateKey) -> None:
    """Write a new key.

    Raises:
        TrustError: there is a key already.
        StorageError: the folder is not writable.
    """
    make_folder(path.parent)
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _reserve(path)
    try:
        write_atomically(path, content, mode=0o600)
    except StorageError:
        path.unlink(missing_ok=True)
        raise


def read_key_file(path: Path, kind: type[Key], *, create_with: str) -> Key:
    """The key in a file.

    Args:
        kind: what it must be.
        create_with: the command that makes one, for the message where there is none.

    Raises:
        TrustError: there is none, others can read it, or the file is no such key in PEM.
        StorageError: the file cannot be read.
    """
    name = path.name
    if not path.is_file():
        raise TrustError(f"expected a key in {name}, found none; run: {create_with}")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise TrustError(f"expected {name} to be its owner's only, found others allowed; chmod 600 it")
    content = read_bounded(path, max_bytes=_MAX_BYTES)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The parser's message and context stay out: they belong to a secret.
        key = None
    if not isinstance(key, kind):
        algorithm = kind.__name__.removesuffix("PrivateKey")
        raise TrustError(f"expected an {algorithm} key in {name}, found another content; restore a copy of it")
    return key


def _reserve(path: Path) -> None:
    """Take the file's name."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise TrustError(
            f"expected no {path.name} yet, found one; move it away first if there shall be a new one"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot write {path.name}: {error.strerror}; choose another folder") from error
