"""The operator's signature inside a `.model` file: where it lies, what it covers, whether it fits.

Terms: the *block* is the entry `dafne_dante_release` of the file's metadata: the statement (`federation.release`) as
text, its Ed25519 signature and the public key, all as text. A stock client reads a file with it as any other.

Covered: family, weights, plan (how the network is built and images are prepared), the source text of every function,
and `metadata.dependencies`, since stock clients run the one and install the other. Not covered: the rest of the
metadata, to which a stock client adds what the server says, and the timestamp inside the file.

Invariants: pure; the statement is verified as the bytes that the file holds, never as something written anew; a block
that is there but malformed is an error, never "unsigned".
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dafne_dante._version import __version__
from dafne_dante.delta.canonical import canonical_bytes
from dafne_dante.delta.signing import PublicKeyText, fingerprint, is_signed_by, public_key_text, sign
from dafne_dante.errors import TrustError, UnsupportedModelError
from dafne_dante.federation.release import MAX_BYTES, Release, parse_release, release_bytes
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.models.plan import plan_from_net_metadata, plan_to_net_metadata

__all__ = [
    "BLOCK",
    "ModelSignature",
    "changes_since_signing",
    "read_signature",
    "sign_model",
    "verified_release",
    "without_signature",
]

# Not "dafne_dante": that key of a type's model.json is what a stock client copies into the metadata.
BLOCK = "dafne_dante_release"
_KEYS = frozenset({"statement", "signature", "public_key"})


@dataclass(frozen=True)
class ModelSignature:
    """A block as it lies in a file: the statement's bytes, the signature and the key that it names, unverified."""

    statement: bytes
    signature: str
    public_key: PublicKeyText

    @property
    def sha256(self) -> str:
        """Digest of the statement."""
        return hashlib.sha256(self.statement).hexdigest()


def sign_model(
    model: GlobalModel,
    key: Ed25519PrivateKey,
    *,
    model_type: str,
    number: int,
    previous_sha256: str = "",
    rollback_to: int = 0,
    created: datetime | None = None,
) -> GlobalModel:
    """The model with a block by `key` in the place of any other; arguments as in `Release`, `created` now when None.

    Raises:
        UnsupportedModelError: its plan or its dependencies cannot be said in JSON.
        TrustError: an argument is out of bounds.
    """
    statement = release_bytes(
        Release(
            model_type=model_type,
            model_id=str(model.model_id),
            number=number,
            weights_sha256=digest_weights(model.weights),
            plan=plan_to_net_metadata(model.plan),
            sources=_source_digests(model),
            dependencies_sha256=_dependencies_digest(model),
            previous_sha256=previous_sha256,
            rollback_to=rollback_to,
            created=(created or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%MZ"),
            software=f"dafne-dante {__version__}",
        )
    )
    block = {
        "statement": statement.decode("utf-8"),
        "signature": sign(key, statement),
        "public_key": public_key_text(key),
    }
    return replace(model, metadata={**model.metadata, BLOCK: block})


def without_signature(model: GlobalModel) -> GlobalModel:
    """The model without a block, for one that is not what the operator signed any more."""
    return replace(model, metadata={name: value for name, value in model.metadata.items() if name != BLOCK})


def read_signature(model: GlobalModel) -> ModelSignature | None:
    """The block, None where there is none; TrustError for one that is malformed."""
    if BLOCK not in model.metadata:
        return None
    block = model.metadata[BLOCK]
    well_formed = isinstance(block, Mapping) and block.keys() == _KEYS
    if not well_formed or not all(isinstance(text, str) and len(text) <= MAX_BYTES for text in block.values()):
        raise TrustError("expected the model's signature block as dafne-dante writes it, found another content")
    try:
        statement = block["statement"].encode("utf-8")
    except UnicodeEncodeError as error:
        raise TrustError("expected the operator's statement in proper text, found another") from error
    fingerprint(block["public_key"])  # TrustError for a text that is no key
    return ModelSignature(statement, block["signature"], block["public_key"])


def verified_release(found: ModelSignature) -> Release:
    """What the block's own key signed, whoever holds that key.

    Raises:
        TrustError: the signature is not that key's over these bytes, or the bytes are no statement.
    """
    if not is_signed_by(found.public_key, found.signature, found.statement):
        raise TrustError(
            f"expected a valid signature by {fingerprint(found.public_key)}, found another; "
            "the model was changed: tell the operator"
        )
    return parse_release(found.statement)


def changes_since_signing(release: Release, model: GlobalModel) -> tuple[str, ...]:
    """What of the model is not what was signed: of family, weights, plan, functions, dependencies; empty when all is.

    Raises:
        UnsupportedModelError: the signed plan is none that this version reads, or the file's dependencies are no JSON.
    """
    same = {
        "family": release.model_id == str(model.model_id),
        "weights": release.weights_sha256 == digest_weights(model.weights),
        "plan": _plan_bytes(release.plan) == _plan_bytes(plan_to_net_metadata(model.plan)),
        "functions": dict(release.sources) == _source_digests(model),
        "dependencies": release.dependencies_sha256 == _dependencies_digest(model),
    }
    return tuple(name for name, is_same in same.items() if not is_same)


def _plan_bytes(net_metadata: Mapping[str, Any]) -> bytes:
    """A plan as this version reads it, so that a key that a later version adds is no change."""
    return _json(plan_to_net_metadata(plan_from_net_metadata(net_metadata)), "plan")


def _source_digests(model: GlobalModel) -> dict[str, str]:
    return {name: _sha256(text.encode("utf-8", "surrogatepass")) for name, text in model.sources.items()}


def _dependencies_digest(model: GlobalModel) -> str:
    """SHA-256 of the canonical JSON of {"dependencies": ...}, null where the metadata names none."""
    return _sha256(_json({"dependencies": model.metadata.get("dependencies")}, "list of dependencies"))


def _json(document: Mapping[str, Any], what: str) -> bytes:
    try:
        return canonical_bytes(document)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedModelError(f"expected the model's {what} as JSON values, found others") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
