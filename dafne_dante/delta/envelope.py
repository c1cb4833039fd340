"""The signed part of a delta file: the manifest, its signature and the key that made it.

Terms: an *envelope* is a file whose layout and manifest were read, before anything is said of its tensors.

Invariants: the signature is checked over the manifest's bytes as they lie in the file, never over bytes that were
written anew; header metadata is exactly manifest, public_key and signature.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dafne_dante.delta.container import Container, StoredTensor, read_container
from dafne_dante.delta.manifest import Manifest, parse_manifest
from dafne_dante.delta.naming import shown
from dafne_dante.delta.signing import PublicKeyText, is_signed_by
from dafne_dante.errors import DeltaFormatError, DeltaSignatureError

__all__ = ["Envelope", "has_valid_signature", "open_envelope", "read_envelope"]


@dataclass(frozen=True, eq=False)
class Envelope:
    """What a delta file says, its signature not yet checked; `manifest_bytes` are those that were signed."""

    manifest: Manifest
    manifest_bytes: bytes
    signature: str
    public_key: PublicKeyText
    tensors: Mapping[str, StoredTensor]


def open_envelope(content: bytes, *, trusted_keys: Collection[str] | None) -> Envelope:
    """Read the envelope of a delta file and check its signature: the first four of DESIGN's checks.

    Args:
        content: the file.
        trusted_keys: public keys; None takes any key, which is only good for looking at a delta.

    Raises:
        DeltaTooLargeError: the file or its header is beyond its limit.
        DeltaFormatError: another layout, or a manifest that breaks its rules.
        DeltaSignatureError: not signed, signed by a key that is not trusted, or changed after signing.
    """
    envelope = read_envelope(content)
    if not has_valid_signature(envelope):
        raise DeltaSignatureError(
            "expected the signature of the manifest, found another; ask the site to send it again"
        )
    if trusted_keys is not None and envelope.public_key not in trusted_keys:
        raise DeltaSignatureError("expected a key that is trusted, found another; trust the site's key first")
    return envelope


def read_envelope(content: bytes) -> Envelope:
    """As `open_envelope`, but nothing is said of the signature, except that there is one."""
    container = read_container(content)
    manifest_text, signature, public_key = _texts(container)
    try:
        manifest_bytes = manifest_text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DeltaFormatError("expected the manifest as Unicode text, found another") from error
    return Envelope(parse_manifest(manifest_bytes), manifest_bytes, signature, public_key, container.tensors)


def has_valid_signature(envelope: Envelope) -> bool:
    """True when the file's own public key signed the manifest's bytes; says nothing about whose key that is."""
    return is_signed_by(envelope.public_key, envelope.signature, envelope.manifest_bytes)


def _texts(container: Container) -> tuple[str, str, str]:
    metadata = container.metadata
    for key in sorted(metadata.keys() - {"manifest", "public_key", "signature"}):
        raise DeltaFormatError(f"expected manifest, public_key and signature in the header, found {shown(key)} too")
    if "manifest" not in metadata:
        raise DeltaFormatError("expected a manifest in the header, found none; this is no delta of dafne-dante")
    if not metadata.get("signature") or not metadata.get("public_key"):
        raise DeltaSignatureError("expected a signature and a public key in the header, found none; refuse the file")
    return metadata["manifest"], metadata["signature"], metadata["public_key"]
