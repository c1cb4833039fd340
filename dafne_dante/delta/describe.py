"""What a person would want to know of a delta file before it leaves the house, as plain JSON values."""

from collections.abc import Mapping
from math import sqrt
from typing import Any

from dafne_dante.adaptation.low_rank import FORMS
from dafne_dante.delta.contents import check_contents
from dafne_dante.delta.envelope import Envelope, has_valid_signature, read_envelope
from dafne_dante.delta.manifest import Manifest
from dafne_dante.delta.naming import parts_of, rows_name, stored_name
from dafne_dante.delta.outline import Outline
from dafne_dante.delta.signing import fingerprint
from dafne_dante.errors import TrustError

__all__ = ["describe_delta"]

_CONTAINS = (
    "This file contains how {weights} weights of the model moved, {numbers} numbers in all, and the facts listed here: "
    "model, method, number of cases ({cases}), names of the labels, Dice before and after, minute of creation, "
    "software version, and the public key and signature of the site. It contains no image, no segmentation, no name, "
    "no identifier or date of a patient or study, no path or host name, no code and no other text. Numbers learned "
    "from images can in principle reveal something of them; fewer cases reveal more."
)


def describe_delta(content: bytes) -> dict[str, Any]:
    """Everything in a delta file: manifest, one row a weight, signature and a statement in words.

    `signature_valid` says whether the file's own key signed it, not whether anybody trusts that key. The length of
    each update is its L2 norm.

    Raises:
        DeltaError: the file cannot be read as a delta, or its tensors are not those of its manifest; an invalid
            signature alone is told, not raised.
    """
    envelope = read_envelope(content)
    lengths = check_contents(envelope, None)
    rows = [_row(envelope, outline, length) for outline, length in lengths.items()]
    numbers = sum(row["numbers"] for row in rows)
    return {
        "kind": "delta",
        "bytes": len(content),
        **_facts(envelope.manifest),
        "signature_valid": has_valid_signature(envelope),
        "public_key": envelope.public_key,
        "fingerprint": _fingerprint(envelope.public_key),
        "length": sqrt(sum(row["length"] ** 2 for row in rows)),
        "weights": rows,
        "statement": _CONTAINS.format(weights=len(rows), numbers=numbers, cases=envelope.manifest.cases)
        + _of_noise(envelope.manifest.noise),
    }


def _facts(manifest: Manifest) -> dict[str, Any]:
    names = (
        "format", "version", "update_id", "model_type", "model_id", "base_timestamp", "base_sha256", "method", "cases",
        "created", "software",
    )  # fmt: skip
    return {
        **{name: getattr(manifest, name) for name in names},
        "labels": list(manifest.labels),
        "dice_before": dict(manifest.dice_before),
        "dice_after": dict(manifest.dice_after),
        "noise": None if manifest.noise is None else dict(manifest.noise),
    }


def _row(envelope: Envelope, outline: Outline, length: float) -> dict[str, Any]:
    entries = envelope.manifest.tensors
    names = [stored_name(outline.weight, part) for part in parts_of(outline.kind)]
    stored = [*names, *(rows_name(name) for name in names if rows_name(name) in entries)]
    return {
        "weight": outline.weight,
        "kind": outline.kind,
        "rank": outline.shapes[0][-1] if outline.kind in FORMS else None,
        "shape": [list(entries[name].shape) for name in names],
        "dtype": [entries[name].dtype for name in names],
        "bytes": sum(len(envelope.tensors[name].content) for name in stored),
        "numbers": sum(envelope.tensors[name].count for name in stored),
        "length": length,
    }


def _of_noise(noise: Mapping[str, float] | None) -> str:
    if noise is None:
        return ""
    told = f" The update was cut to a length of at most {noise['clip_norm']:g}"
    return f"{told}; noise of {noise['multiplier']:g} times that was added to every number that moves."


def _fingerprint(public_key: str) -> str | None:
    try:
        return fingerprint(public_key)
    except TrustError:
        return None
