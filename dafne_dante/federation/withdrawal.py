"""A site takes an update back: a signed statement that travels as an upload.

Terms: a *withdrawal* is canonical JSON (`delta.canonical`) of the texts `public_key`, `signature` and `statement`, with
`format` and `version`; the statement is the canonical JSON of update_id, model_type and the minute, and what is signed.

Invariants: only the key that signed the update can withdraw it, which whoever reads the ledger checks; a withdrawal is
bounded, holds no other text, and is verified as the bytes that were signed; making it twice does no more than once.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dafne_dante.delta.canonical import canonical_bytes, parse_canonical
from dafne_dante.delta.signing import PublicKeyText, is_signed_by, public_key_text, sign
from dafne_dante.errors import DeltaFormatError, DeltaSignatureError

__all__ = [
    "MAX_SEALED_BYTES",
    "MAX_WITHDRAWAL_BYTES",
    "Withdrawal",
    "is_withdrawal",
    "make_withdrawal",
    "open_withdrawal",
    "read_withdrawal",
]

MAX_WITHDRAWAL_BYTES = 4096
MAX_SEALED_BYTES = MAX_WITHDRAWAL_BYTES + 256
"""Of one in an envelope (delta/sealing.py)."""
_FORMAT, _VERSION = "dafne-dante-withdrawal", 1
_BEGIN = b'{"format":"dafne-dante-withdrawal",'
_KEYS = frozenset({"format", "public_key", "signature", "statement", "version"})
_PATTERNS: Mapping[str, str] = {
    "update_id": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "model_type": r"[A-Za-z0-9() -]{1,100}",
    "created": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}Z",
}


@dataclass(frozen=True)
class Withdrawal:
    """Which update is withdrawn, of which type, when (UTC to the minute), by which key."""

    update_id: str
    model_type: str
    created: str
    public_key: PublicKeyText


def is_withdrawal(content: bytes) -> bool:
    """Whether an upload is to be read as a withdrawal."""
    return content.startswith(_BEGIN)


def make_withdrawal(update_id: str, model_type: str, key: Ed25519PrivateKey) -> bytes:
    """The file; DeltaFormatError for what is no update_id, or no type's name."""
    created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
    withdrawal = Withdrawal(update_id, model_type, created, public_key_text(key))
    document = {name: text for name, text in asdict(withdrawal).items() if name in _PATTERNS}
    _check(document)
    statement = canonical_bytes(document)
    return canonical_bytes(
        {
            "format": _FORMAT,
            "version": _VERSION,
            "statement": statement.decode(),
            "public_key": withdrawal.public_key,
            "signature": sign(key, statement),
        }
    )


def open_withdrawal(content: bytes, *, trusted_keys: Collection[PublicKeyText], model_type: str) -> Withdrawal:
    """Read a withdrawal by a trusted key.

    Raises:
        DeltaFormatError: another layout, or of another type.
        DeltaSignatureError: changed after signing, or signed by a key that is not trusted.
    """
    found = read_withdrawal(content)
    if found.public_key not in trusted_keys:
        raise DeltaSignatureError("expected a withdrawal by a key that is trusted, found another; trust the key first")
    if found.model_type != model_type:
        raise DeltaFormatError("expected a withdrawal of this type, found one of another; check the type")
    return found


def read_withdrawal(content: bytes) -> Withdrawal:
    """Read a withdrawal and check that its key signed it, whoever's that is.

    Raises:
        DeltaFormatError: another layout.
        DeltaSignatureError: changed after signing.
    """
    if len(content) > MAX_WITHDRAWAL_BYTES:
        raise DeltaFormatError(f"expected a withdrawal of at most {MAX_WITHDRAWAL_BYTES} bytes, found a longer file")
    document = parse_canonical(content, "a withdrawal")
    head = (document.get("format"), document.get("version"))
    if document.keys() != _KEYS or head != (_FORMAT, _VERSION) or type(document["version"]) is not int:
        raise DeltaFormatError("expected a withdrawal as dafne-dante writes it, found other keys; update dafne-dante")
    texts = [document[name] for name in ("public_key", "signature", "statement")]
    if not all(isinstance(text, str) for text in texts):
        raise DeltaFormatError("expected texts in a withdrawal, found others")
    public_key, signature, statement = texts
    if not is_signed_by(public_key, signature, statement.encode("utf-8", "surrogatepass")):
        raise DeltaSignatureError("expected the signature of the withdrawal, found another; have it made again")
    told = parse_canonical(statement.encode(), "a withdrawal's statement")
    _check(told)
    return Withdrawal(**told, public_key=public_key)


def _check(document: Mapping[str, Any]) -> None:
    if document.keys() != _PATTERNS.keys():
        raise DeltaFormatError("expected update_id, model_type and created in a withdrawal, found others")
    for name, pattern in _PATTERNS.items():
        if not isinstance(document[name], str) or not re.fullmatch(pattern, document[name]):
            raise DeltaFormatError(f"expected a well-formed {name} in a withdrawal, found another text")
