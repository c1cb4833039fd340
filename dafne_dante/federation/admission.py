"""Whether an operator takes a delta: everything that can be said of it before it is tried on a case.

The checks, cheapest first: envelope and signature by a trusted key, not seen before, of this family and these labels,
of a base that we have, then tensors (shapes, digests, finiteness), then length.

Invariants: pure; nothing is taken in part; each refusal has an error of its own, which is the reason that quarantine
records. The base is found by its digest: `base_timestamp` is the sender's word and decides nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from dafne_dante.delta.decode import Delta, decode_envelope
from dafne_dante.delta.difference import relative_length
from dafne_dante.delta.envelope import Envelope, open_envelope
from dafne_dante.delta.manifest import Manifest
from dafne_dante.errors import DeltaBaseError, DeltaNormError, DeltaReplayError, IncompatibleModelError
from dafne_dante.types import Weights

__all__ = ["admit", "admit_envelope"]


def admit(
    content: bytes,
    *,
    bases: "Mapping[str, Weights]",
    trusted_keys: Collection[str],
    seen_update_ids: Collection[str],
    model_id: UUID | str,
    labels: Sequence[str],
    max_norm_ratio: float,
) -> Delta:
    """The delta in `content`, when it may take part in a merge.

    Args:
        content: the file.
        bases: `digest_weights` of every global model that updates are still taken for, to its weights; may read them
            only when asked.
        trusted_keys: public keys of the sites.
        seen_update_ids: of every delta that was ever admitted or refused after its signature was found good.
        model_id: the family.
        labels: of the family, in the order of its outputs.
        max_norm_ratio: longest update, as a share of its base's length.

    Raises:
        DeltaTooLargeError, DeltaFormatError, DeltaSignatureError, DeltaShapeError, DeltaDigestError, DeltaValueError:
            as `decode_delta`.
        DeltaReplayError: seen before.
        IncompatibleModelError: of another family, or of other labels.
        DeltaBaseError: made from a base that is not among `bases`.
        DeltaNormError: too long.
    """
    return admit_envelope(
        open_envelope(content, trusted_keys=trusted_keys),
        bases=bases,
        seen_update_ids=seen_update_ids,
        model_id=model_id,
        labels=labels,
        max_norm_ratio=max_norm_ratio,
    )


def admit_envelope(
    envelope: Envelope,
    *,
    bases: "Mapping[str, Weights]",
    seen_update_ids: Collection[str],
    model_id: UUID | str,
    labels: Sequence[str],
    max_norm_ratio: float,
) -> Delta:
    """As `admit`, for an envelope that `open_envelope` has opened with the keys that are trusted."""
    manifest = envelope.manifest
    if manifest.update_id in seen_update_ids:
        raise DeltaReplayError("expected an update that was not seen before, found one that was; send each only once")
    _check_family(manifest, str(model_id), labels)
    base = bases.get(manifest.base_sha256)
    if base is None:
        raise DeltaBaseError(
            "expected a delta of a global model that is kept here, found another base; pull and retrain"
        )
    delta = decode_envelope(envelope, base=base)
    ratio = relative_length(delta.length, base)
    if not ratio <= max_norm_ratio:
        raise DeltaNormError(
            f"expected an update of at most {max_norm_ratio:g} of its base's length, found {ratio:.3g}; train it again"
        )
    return delta


def _check_family(manifest: Manifest, model_id: str, labels: Sequence[str]) -> None:
    if manifest.model_id != model_id:
        raise IncompatibleModelError("expected a delta of this model's family, found one of another; check the type")
    if manifest.labels != tuple(labels):
        raise IncompatibleModelError(
            f"expected the family's {len(labels)} labels in their order, found others; train on its labels"
        )
