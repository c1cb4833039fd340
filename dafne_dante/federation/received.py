"""An upload that was fetched, and what it turns out to be.

Invariants: its digest, its opening and its envelope are each computed once; the file is written once, as it was
fetched, and only a sealed one a second time, opened.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from dafne_dante.delta.envelope import Envelope, open_envelope
from dafne_dante.delta.sealing import is_sealed, open_sealed
from dafne_dante.federation.client import PendingUpload
from dafne_dante.federation.full_models import is_full_model

__all__ = ["Opened", "Received", "open_upload"]


@dataclass(frozen=True, eq=False)
class Received:
    """An upload's bytes, and the file in the scratch that holds them."""

    upload: PendingUpload
    path: Path
    content: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Digest of the bytes that lie in the queue."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, eq=False)
class Opened:
    """What an upload holds: a delta by a trusted key with its `envelope`, or a full model, whose `envelope` is None.

    `content` is what was sealed, where it came sealed.
    """

    received: Received
    content: bytes = field(repr=False)
    envelope: Envelope | None

    @property
    def name(self) -> tuple[str, str]:
        """The update_id and the public key of a delta; "" and "" for a full model."""
        return ("", "") if self.envelope is None else (self.envelope.manifest.update_id, self.envelope.public_key)

    @property
    def was_sealed(self) -> bool:
        """Whether the file in the scratch is another than what it holds."""
        return self.content is not self.received.content


def open_upload(received: Received, *, seal_keys: Sequence[X25519PrivateKey], trusted_keys: Collection[str]) -> Opened:
    """Open an upload as far as the signature; DeltaError for what is neither a trusted delta nor begun as a model."""
    content = open_sealed(received.content, seal_keys) if is_sealed(received.content) else received.content
    envelope = None if is_full_model(content) else open_envelope(content, trusted_keys=trusted_keys)
    return Opened(received, content, envelope)
