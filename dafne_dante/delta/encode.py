"""From updates to the bytes of a signed delta file.

Invariants: equal arguments (with update_id and created given) make equal bytes; nothing goes into the file that is not
an argument, except the software's version, a new update_id and the minute.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dafne_dante._version import __version__
from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.delta.container import Container, StoredTensor, write_container
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.delta.manifest import Manifest, TensorEntry, canonical_json
from dafne_dante.delta.naming import check_weight_name, shown
from dafne_dante.delta.noise import Noise
from dafne_dante.delta.precision import Precision, kind_of, restore, store
from dafne_dante.delta.signing import public_key_text, sign
from dafne_dante.errors import DeltaFormatError

__all__ = ["DeltaFacts", "encode_delta", "updates_as_sent"]

_DICE_DECIMALS = 4


@dataclass(frozen=True)
class DeltaFacts:
    """What the manifest says beside the tensors; bounds as in `manifest.Manifest`.

    Attributes:
        model_type: the type's name on the server, empty when unknown.
        model_id: the family.
        base_timestamp: version number of the base, decimal digits.
        base_sha256: `digest_weights` of the base.
        method: how it was trained.
        cases: labelled cases that took part.
        labels: in the order of the model's outputs.
        dice_before, dice_after: "mean" and each label, None where a label never occurs; written to four decimals.
        noise: how the update was clipped and noised; None where it was not. Written to four decimals.
    """

    model_type: str
    model_id: UUID
    base_timestamp: str
    base_sha256: str
    method: str
    cases: int
    labels: tuple[str, ...]
    dice_before: Mapping[str, float | None]
    dice_after: Mapping[str, float | None]
    noise: Noise | None = None


def encode_delta(
    updates: Iterable[WeightUpdate],
    facts: DeltaFacts,
    signing_key: Ed25519PrivateKey,
    *,
    precision: Precision = "auto",
    update_id: UUID | None = None,
    created: datetime | None = None,
) -> bytes:
    """The content of a `.delta` file.

    Args:
        updates: at most one a weight.
        facts: the rest of the manifest.
        signing_key: the site's.
        precision: "auto" chooses among int8, float16 and float32 as in `delta.precision`; "float16" leaves int8 out.
            Each update's own goes with it.
        update_id: version 4; a new one when left out.
        created: with a time zone; now when left out.

    Raises:
        DeltaFormatError: a fact or a weight's name is out of bounds, or a weight has two updates.
        DeltaValueError: an update is not finite.
        DeltaTooLargeError: the file or its header would be beyond its limit.
    """
    tensors: dict[str, StoredTensor] = {}
    entries: dict[str, TensorEntry] = {}
    for update in updates:
        check_weight_name(update.weight)
        stored = store(update, precision=precision)
        if stored.keys() & entries.keys():
            raise DeltaFormatError(f"expected one update of {shown(update.weight)}, found two")
        tensors |= stored
        entries |= {name: _entry(update, tensor) for name, tensor in stored.items()}
    content = canonical_json(_manifest(facts, entries, update_id or uuid4(), created or datetime.now(timezone.utc)))
    metadata = {
        "manifest": content.decode("utf-8"),
        "public_key": public_key_text(signing_key),
        "signature": sign(signing_key, content),
    }
    return write_container(Container(metadata, tensors))


def updates_as_sent(updates: Iterable[WeightUpdate], *, precision: Precision = "auto") -> tuple[WeightUpdate, ...]:
    """The updates as a reader of their delta will get them, so that they can be measured before it is signed.

    Raises:
        DeltaValueError: an update is not finite.
    """
    return tuple(restore(update.weight, store(update, precision=precision), update) for update in updates)


def _entry(update: WeightUpdate, stored: StoredTensor) -> TensorEntry:
    scale = float(update.value.scale) if isinstance(update.value, LowRank) else 1.0
    return TensorEntry(update.weight, kind_of(update), stored.shape, stored.dtype, scale, stored.sha256)


def _manifest(facts: DeltaFacts, entries: Mapping[str, TensorEntry], update_id: UUID, created: datetime) -> Manifest:
    return Manifest(
        update_id=str(update_id),
        model_type=facts.model_type,
        model_id=str(facts.model_id),
        base_timestamp=facts.base_timestamp,
        base_sha256=facts.base_sha256,
        method=facts.method,
        tensors=entries,
        cases=facts.cases,
        labels=facts.labels,
        dice_before=_rounded(facts.dice_before),
        dice_after=_rounded(facts.dice_after),
        created=created.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        software=f"dafne-dante {__version__}",
        noise=None
        if facts.noise is None
        else {
            "clip_norm": max(round(float(facts.noise.clip_norm), _DICE_DECIMALS), 10.0**-_DICE_DECIMALS),
            "multiplier": round(float(facts.noise.multiplier), _DICE_DECIMALS),
        },
    )


def _rounded(dice: Mapping[str, float | None]) -> dict[str, float | None]:
    """Four decimals say all that a few cases can, and never need an exponent in the canonical form."""
    return {name: None if value is None else round(float(value), _DICE_DECIMALS) for name, value in dice.items()}
