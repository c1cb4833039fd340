"""A full model that a stock Dafne client uploaded, as the update that it is: its difference to its base.

Terms: base and file timestamp as in `known_versions`; the sender's *site* is the trusted key whose name is the sender's
user name on the server, else that user name, since nobody signed the model; the *update_id* is made from the digest of
the weights and their base, so the same weights are one update whoever sends them, and however their file is written.

Invariants: pure; the file goes through the safe reader and none of it is run; a full model passes what a delta passes
(family, labels, base, shapes, finiteness, length); it counts as one case, since a stock client does not say how many.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from dafne_dante.delta.difference import WeightUpdate, relative_norm, take_difference
from dafne_dante.errors import DeltaNormError, DeltaReplayError, DeltaValueError, IncompatibleModelError
from dafne_dante.federation.known_versions import KnownVersions
from dafne_dante.models.build import canonical_weights
from dafne_dante.models.file import parse_model
from dafne_dante.models.global_model import GlobalModel, digest_weights

__all__ = ["FullModel", "admit_full_model", "is_full_model", "reread_full_model", "site_of"]

_PICKLE = b"\x80"
_SAFETENSORS_HEADER_AT = 8


@dataclass(frozen=True, eq=False)
class FullModel:
    """A full model that may take part in a merge: its update_id, its base and the difference to it."""

    update_id: str
    base_sha256: str
    updates: tuple[WeightUpdate, ...]


def is_full_model(content: bytes) -> bool:
    """Whether this is to be read as a `.model` file; a delta begins with its header's length and a brace."""
    return content.startswith(_PICKLE) and content[_SAFETENSORS_HEADER_AT : _SAFETENSORS_HEADER_AT + 1] != b"{"


def site_of(username: str, trusted_keys: Mapping[str, str] | None = None) -> str:
    """The site of a full model, as merging counts sites: a trusted key, or a text that no public key is written as.

    `trusted_keys`: public key to the operator's name for it.
    """
    of_that_name = (key for key, name in (trusted_keys or {}).items() if name == username)
    return next(of_that_name, f"user:{username}")


def admit_full_model(
    content: bytes,
    *,
    versions: KnownVersions,
    seen_update_ids: Collection[str] = (),
    max_norm_ratio: float,
) -> FullModel:
    """The update that a full model is.

    Args:
        content: the file.
        versions: the kept versions; the newest gives family and labels.
        seen_update_ids: of every update that was taken or refused before.
        max_norm_ratio: longest update, as a share of its base's length.

    Raises:
        ModelError: not a model that the safe reader takes, or of another family or other labels.
        DeltaBaseError: its base is not kept.
        DeltaReplayError: a version that was published, or an update that was seen before.
        DeltaShapeError, DeltaValueError: weights that are not its base's, not finite, or all the same as its base's.
        DeltaNormError: too far from its base.
    """
    model = parse_model(content)
    _check_family(model, versions.current)
    digest = digest_weights(model.weights)
    if digest in versions:
        raise DeltaReplayError("expected a model that learned something, found a version as it was published")
    base_sha256 = versions.base_of(model)
    update_id = _update_id(digest, base_sha256)
    if update_id in seen_update_ids:
        raise DeltaReplayError("expected a model that was not seen before, found one that was; send each only once")
    base = canonical_weights(model.plan, versions[base_sha256])
    updates = take_difference(base, canonical_weights(model.plan, model.weights), {})
    if not updates:
        raise DeltaValueError("expected a model that learned something, found the weights of its base; train it first")
    ratio = relative_norm(updates, base)
    if not ratio <= max_norm_ratio:
        raise DeltaNormError(
            f"expected a model at most {max_norm_ratio:g} of its base's length away, found {ratio:.3g}; train it again"
        )
    return FullModel(update_id, base_sha256, updates)


def reread_full_model(content: bytes, *, update_id: str, base_sha256: str, versions: KnownVersions) -> FullModel:
    """The update that a full model was when it was admitted; ModelError or DeltaShapeError for a damaged file."""
    model = parse_model(content)
    base = canonical_weights(model.plan, versions[base_sha256])
    return FullModel(update_id, base_sha256, take_difference(base, canonical_weights(model.plan, model.weights), {}))


def _check_family(model: GlobalModel, current: GlobalModel) -> None:
    if model.model_id != current.model_id:
        raise IncompatibleModelError("expected a full model of this family, found one of another; check the type")
    if model.plan.labels != current.plan.labels:
        raise IncompatibleModelError(
            f"expected the family's {len(current.plan.labels)} labels in their order, found others; train on its labels"
        )


def _update_id(digest: str, base_sha256: str) -> str:
    return str(UUID(bytes=hashlib.sha256(f"{digest} {base_sha256}".encode()).digest()[:16], version=4))
