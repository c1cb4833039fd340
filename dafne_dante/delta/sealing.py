"""A delta closed in an envelope that only the operator can open, so that whoever runs the web server cannot read it.

Layout: `dafne-dante-sealed 1` and a line feed; 8 bytes, the beginning of SHA-256 of the public key that it is sealed
to; then what HPKE (RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305) makes of the
delta, its encapsulated key first. The bytes before are HPKE's `info`, so that they cannot be exchanged.

Terms: a *seal key* is an X25519 key; its public half is written as base64 of its 32 raw bytes, in the one form that
base64 has for them.

Invariants: sealing hides a delta and proves nothing: who sent it is told by the signature inside, which is checked
after opening; two envelopes of one delta differ; a changed bit anywhere is refused.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dafne_dante.delta.container import MAX_DELTA_BYTES
from dafne_dante.delta.key_files import create_key_file, read_key_file
from dafne_dante.errors import DeltaFormatError, DeltaSealError, DeltaTooLargeError, TrustError

__all__ = [
    "SEAL_KEY_FILE",
    "SealKeyText",
    "create_seal_key",
    "is_sealed",
    "load_seal_key",
    "open_sealed",
    "seal",
    "seal_key_text",
]

SealKeyText: TypeAlias = str
"""Base64 of the 32 raw bytes of an X25519 public key."""

SEAL_KEY_FILE = "seal_key"
_MAGIC = b"dafne-dante-sealed 1\n"
_NAME_BYTES = 8
_KEY_BYTES = 32
_ADDED_BYTES = len(_MAGIC) + _NAME_BYTES + 32 + 16
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def create_seal_key(folder: Path) -> SealKeyText:
    """Make the operator's seal key and return its public half, which sites pin.

    Raises:
        TrustError: there is a key already. What is sealed to it could no longer be opened.
        StorageError: the folder is not writable.
    """
    key = X25519PrivateKey.generate()
    create_key_file(folder / SEAL_KEY_FILE, key)
    return seal_key_text(key)


def load_seal_key(folder: Path) -> X25519PrivateKey:
    """The operator's seal key.

    Raises:
        TrustError: there is none, others can read it, or the file is no X25519 key in PEM.
        StorageError: the file cannot be read.
    """
    command = "dafne-dante keys create --seal"
    return read_key_file(folder / SEAL_KEY_FILE, X25519PrivateKey, create_with=command)  # type: ignore[type-abstract]


def seal_key_text(key: X25519PrivateKey) -> SealKeyText:
    """The public half of a seal key."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode("ascii")


def seal(content: bytes, public_key: SealKeyText) -> bytes:
    """The delta in an envelope for the owner of `public_key`.

    Raises:
        TrustError: the key is malformed.
        DeltaTooLargeError: the delta is beyond its limit.
    """
    if len(content) > MAX_DELTA_BYTES:
        raise DeltaTooLargeError(f"expected a delta of at most {MAX_DELTA_BYTES} bytes, found {len(content)}")
    raw = _raw(public_key)
    head = _MAGIC + _name(raw)
    return head + bytes(_SUITE.encrypt(content, X25519PublicKey.from_public_bytes(raw), head))


def is_sealed(content: bytes) -> bool:
    """Whether the bytes begin as an envelope does."""
    return content.startswith(_MAGIC)


def open_sealed(content: bytes, keys: Sequence[X25519PrivateKey]) -> bytes:
    """The delta in an envelope, by the one of `keys` that it names.

    Raises:
        DeltaTooLargeError: the envelope is longer than one of the longest delta.
        DeltaFormatError: it is no envelope.
        DeltaSealError: it is sealed to another key, or was changed on its way.
    """
    if len(content) > MAX_DELTA_BYTES + _ADDED_BYTES:
        raise DeltaTooLargeError(f"expected a sealed delta of at most {MAX_DELTA_BYTES + _ADDED_BYTES} bytes")
    if not is_sealed(content) or len(content) < _ADDED_BYTES:
        raise DeltaFormatError("expected a sealed delta, found a file of another kind")
    head, sealed = content[: len(_MAGIC) + _NAME_BYTES], content[len(_MAGIC) + _NAME_BYTES :]
    named = [key for key in keys if _name(_raw(seal_key_text(key))) == head[len(_MAGIC) :]]
    if not named:
        raise DeltaSealError("expected a delta sealed to this operator's key, found one for another; pin the right key")
    try:
        return bytes(_SUITE.decrypt(sealed, named[0], head))
    except (InvalidTag, ValueError):
        raise DeltaSealError("expected a sealed delta as it was sent, found a changed one; send it again") from None


def _name(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:_NAME_BYTES]


def _raw(public_key: str) -> bytes:
    try:
        raw = base64.b64decode(public_key, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != _KEY_BYTES or base64.b64encode(raw).decode("ascii") != public_key:
        raise TrustError(f"expected a seal key as base64 of {_KEY_BYTES} bytes, found another text; copy it again")
    return raw
