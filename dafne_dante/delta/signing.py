"""A site's signing key, and the keys that an operator trusts (Ed25519, RFC 8032).

Terms: a *public key* is written as base64 of its 32 raw bytes, in the one form that base64 has for them; its
*fingerprint* for people is the first 16 hexadecimal digits of its SHA-256, in groups of four. Both files lie in the
configuration folder: `signing_key` (PEM, PKCS#8) and `trusted_keys.json`.

Invariants: the private key is readable by its owner only, is never overwritten and never part of a message; the list
of trusted keys is read strictly, since who can add a key to it can change the model.
"""

import base64
import hashlib
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dafne_dante.delta.canonical import canonical_bytes, parse_strict
from dafne_dante.delta.key_files import create_key_file, read_key_file
from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import DeltaFormatError, TrustError

__all__ = [
    "SIGNING_KEY_FILE",
    "TRUSTED_KEYS_FILE",
    "PublicKeyText",
    "create_signing_key",
    "ensure_signing_key",
    "fingerprint",
    "is_signed_by",
    "load_signing_key",
    "public_key_text",
    "sign",
    "trust_key",
    "trusted_keys",
]

PublicKeyText: TypeAlias = str
"""Base64 of the 32 raw bytes of an Ed25519 public key."""

SIGNING_KEY_FILE = "signing_key"
TRUSTED_KEYS_FILE = "trusted_keys.json"
_FORMAT, _VERSION = "dafne-dante-trusted-keys", 1
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64
_MAX_LIST_BYTES = 4 * 1024**2
_MAX_NAME_CHARACTERS = 100


def create_signing_key(folder: Path) -> PublicKeyText:
    """Make this site's signing key and return its public half.

    Raises:
        TrustError: there is a key already. Deltas signed by it would no longer be this site's.
        StorageError: the folder is not writable.
    """
    key = Ed25519PrivateKey.generate()
    create_key_file(folder / SIGNING_KEY_FILE, key)
    return public_key_text(key)


def load_signing_key(folder: Path) -> Ed25519PrivateKey:
    """This site's signing key.

    Raises:
        TrustError: there is none, others can read it, or the file is no Ed25519 key in PEM.
        StorageError: the file cannot be read.
    """
    command = "dafne-dante keys create"
    return read_key_file(folder / SIGNING_KEY_FILE, Ed25519PrivateKey, create_with=command)  # type: ignore[type-abstract]


def ensure_signing_key(folder: Path) -> Ed25519PrivateKey:
    """This site's signing key, made now where there is none; raises what the two functions above raise."""
    if not (folder / SIGNING_KEY_FILE).exists():
        create_signing_key(folder)
    return load_signing_key(folder)


def public_key_text(key: Ed25519PrivateKey) -> PublicKeyText:
    """The public half of a signing key."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode("ascii")


def fingerprint(public_key: PublicKeyText) -> str:
    """What people compare on the telephone: "1a2b 3c4d 5e6f 7081"; TrustError for a malformed key."""
    digits = hashlib.sha256(_key_bytes(public_key)).hexdigest()[:16]
    return " ".join(digits[start : start + 4] for start in range(0, 16, 4))


def sign(key: Ed25519PrivateKey, content: bytes) -> str:
    """Base64 of the 64 bytes of the signature over `content`."""
    return base64.b64encode(key.sign(content)).decode("ascii")


def is_signed_by(public_key: PublicKeyText, signature: str, content: bytes) -> bool:
    """True when `signature`, in canonical base64, is that of `content` by `public_key`; False for anything else."""
    key_bytes, signature_bytes = _decode(public_key, _KEY_BYTES), _decode(signature, _SIGNATURE_BYTES)
    if key_bytes is None or signature_bytes is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key_bytes).verify(signature_bytes, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def trust_key(folder: Path, public_key: PublicKeyText, name: str) -> None:
    """Take deltas that `public_key` signed, and call the site `name` (1 to 100 printable characters).

    A key that is trusted already is renamed.

    Raises:
        TrustError: the key or the name is malformed, or the name is another key's.
        StorageError: the folder is not writable.
    """
    keys = trusted_keys(folder)
    _check(public_key, name)
    if any(known == name and key != public_key for key, known in keys.items()):
        raise TrustError("expected a name that no other trusted key has; choose another, or remove the old key first")
    keys[public_key] = name
    content = canonical_bytes({"format": _FORMAT, "version": _VERSION, "keys": keys})
    write_atomically(make_folder(folder) / TRUSTED_KEYS_FILE, content + b"\n", mode=0o600)


def trusted_keys(folder: Path) -> dict[PublicKeyText, str]:
    """Public key to name, empty where nobody is trusted yet.

    Raises:
        TrustError: the list is malformed; nothing of it is used then.
        StorageError: it cannot be read.
    """
    path = folder / TRUSTED_KEYS_FILE
    if not path.exists():
        return {}
    try:
        document = parse_strict(read_bounded(path, max_bytes=_MAX_LIST_BYTES), TRUSTED_KEYS_FILE)
    except DeltaFormatError as error:
        raise TrustError(str(error)) from error
    keys = document.get("keys")
    head = document.keys() == {"format", "version", "keys"} and (document["format"], document["version"])
    if head != (_FORMAT, _VERSION) or not isinstance(keys, dict):
        raise TrustError(f"expected {TRUSTED_KEYS_FILE} with format {_FORMAT}, version {_VERSION} and keys")
    for public_key, name in keys.items():
        _check(public_key, name)
    if len(set(keys.values())) != len(keys):
        raise TrustError(f"expected {TRUSTED_KEYS_FILE} to give each key a name of its own; correct it")
    return dict(keys)


def _check(public_key: str, name: object) -> None:
    _key_bytes(public_key)
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME_CHARACTERS or not name.isprintable():
        raise TrustError(f"expected a trusted key's name of 1 to {_MAX_NAME_CHARACTERS} printable characters")


def _key_bytes(public_key: str) -> bytes:
    raw = _decode(public_key, _KEY_BYTES)
    if raw is None:
        raise TrustError(f"expected a public key as base64 of {_KEY_BYTES} bytes, found another text; copy it again")
    return raw


def _decode(text: str, length: int) -> bytes | None:
    """The bytes of canonical base64, None for any other text: base64 has unused bits, and no bit may go unseen."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if len(raw) == length and base64.b64encode(raw).decode("ascii") == text else None
