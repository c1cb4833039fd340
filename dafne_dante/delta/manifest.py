"""The manifest of a delta: all that a delta says about itself, in the bytes that are signed.

Terms: the *canonical form* is that of `delta.canonical`; no other bytes are read as a manifest.

Invariants: exactly the keys of `Manifest`, each of its type and within its bounds; no free text, path, host name, UID
or date of a study. `mean` is not a label's name, because it names the mean over labels.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from math import isfinite
from typing import Any, NoReturn
from uuid import UUID

from dafne_dante.delta.canonical import canonical_bytes, parse_canonical
from dafne_dante.delta.naming import check_weight_name, shown
from dafne_dante.errors import DeltaFormatError

__all__ = [
    "FORMAT",
    "KINDS",
    "VERSION",
    "Manifest",
    "TensorEntry",
    "canonical_json",
    "check_manifest",
    "parse_manifest",
]

FORMAT = "dafne-dante-delta"
VERSION = 1
KINDS = ("dense", "lora-channel", "lora-linear", "lora-shared")
STORED_DTYPES = ("F16", "F32", "I8")
MAX_LABELS = 254
MAX_CASES = 1_000_000
MAX_AXES = 5
_MAX_NOISE = 1e6

_PLAIN_NAME_CHARACTERS = 128
_PATTERNS: Mapping[str, str] = {
    "base_timestamp": r"[0-9]{1,20}",
    "base_sha256": r"[0-9a-f]{64}",
    "method": r"[a-z][a-z0-9-]{0,31}",
    "created": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}Z",
    "software": r"[a-z][a-z0-9-]{0,31} [0-9A-Za-z.+]{1,32}",
}


@dataclass(frozen=True)
class TensorEntry:
    """One stored tensor.

    Attributes:
        weight: the base's weight that it belongs to.
        kind: of the update, one of KINDS; all stored tensors of a weight share it.
        shape: of the stored tensor, 1 to MAX_AXES axes, none empty ([] for a scalar).
        dtype: F32, F16 or I8.
        scale: s of a low-rank update; 1.0 for a dense one.
        sha256: of the stored bytes, 64 lower-case hexadecimal digits.
    """

    weight: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a delta says about itself.

    Attributes:
        update_id: uuid4 as text; an operator takes each only once.
        model_type: the type's name on the server, empty when unknown; a hint.
        model_id: the family, uuid as text.
        base_timestamp: version number of the base on the server, decimal digits; a hint, base_sha256 decides.
        base_sha256: `models.global_model.digest_weights` of the base.
        method: how it was trained, for example lora.
        tensors: stored name to its entry.
        cases: labelled cases that took part, 1 or more.
        labels: names of the labels, in the order of the model's outputs.
        dice_before, dice_after: on held-out cases, "mean" and each label; None where a label never occurs.
        created: UTC to the minute, "2026-11-23T01:05Z".
        software: name and version, "dafne-dante 0.1.0".
        noise: {"clip_norm": C, "multiplier": m} of `delta.noise` where the update was clipped; None, and no key in the
            manifest, where it was not.
    """

    update_id: str
    model_type: str
    model_id: str
    base_timestamp: str
    base_sha256: str
    method: str
    tensors: Mapping[str, TensorEntry]
    cases: int
    labels: tuple[str, ...]
    dice_before: Mapping[str, float | None]
    dice_after: Mapping[str, float | None]
    created: str
    software: str
    format: str = FORMAT
    version: int = VERSION
    noise: Mapping[str, float] | None = None


_OPTIONAL_KEYS = frozenset({"noise"})
_KEYS = frozenset(item.name for item in fields(Manifest)) - _OPTIONAL_KEYS
_NOISE_KEYS = {"clip_norm", "multiplier"}
_ENTRY_KEYS = frozenset(item.name for item in fields(TensorEntry))


def canonical_json(manifest: Manifest) -> bytes:
    """The bytes to sign; DeltaFormatError, naming the key, where a value is out of bounds."""
    check_manifest(manifest)
    document = {name: getattr(manifest, name) for name in _KEYS}
    document["labels"] = list(manifest.labels)
    document["dice_before"], document["dice_after"] = dict(manifest.dice_before), dict(manifest.dice_after)
    document["tensors"] = {
        name: {**{key: getattr(entry, key) for key in _ENTRY_KEYS}, "shape": list(entry.shape)}
        for name, entry in manifest.tensors.items()
    }
    if manifest.noise is not None:
        document["noise"] = dict(manifest.noise)
    return canonical_bytes(document)


def parse_manifest(content: bytes) -> Manifest:
    """Read a stranger's manifest.

    Raises:
        DeltaFormatError: naming the key: unknown, missing, twice, of the wrong type or out of bounds; an unsupported
            version; or bytes that are not the canonical form.
    """
    document = parse_canonical(content, "the manifest")
    # The version comes first: a later one may well have other keys.
    if document.get("format") != FORMAT:
        _refuse("format", f"to be {FORMAT}")
    if type(document.get("version")) is not int or document["version"] != VERSION:
        _refuse("version", f"to be {VERSION}; update dafne-dante to read later ones")
    _check_keys(document, _KEYS | (document.keys() & _OPTIONAL_KEYS), "")
    if "noise" in document:
        _check_type("noise", document["noise"], dict)
    for name in ("tensors", "dice_before", "dice_after"):
        _check_type(name, document[name], dict)
    _check_type("labels", document["labels"], list)
    tensors = {name: _parse_entry(name, entry) for name, entry in document["tensors"].items()}
    manifest = Manifest(**{**document, "tensors": tensors, "labels": tuple(document["labels"])})
    check_manifest(manifest)
    return manifest


def check_manifest(manifest: Manifest) -> None:
    """DeltaFormatError, naming the key, where a value has another type or is out of bounds."""
    for name, pattern in _PATTERNS.items():
        _check_text(name, getattr(manifest, name), pattern)
    _check_moment(manifest.created)
    _check_uuid("update_id", manifest.update_id, version=4)
    _check_uuid("model_id", manifest.model_id)
    if manifest.model_type != "":
        _check_plain_name("model_type", manifest.model_type)
    if type(manifest.cases) is not int or not 1 <= manifest.cases <= MAX_CASES:
        _refuse("cases", f"to be a whole number from 1 to {MAX_CASES}")
    _check_labels(manifest.labels)
    for name in ("dice_before", "dice_after"):
        _check_dice(name, getattr(manifest, name), manifest.labels)
    if manifest.noise is not None:
        _check_noise(manifest.noise)
    for stored, entry in manifest.tensors.items():
        _check_entry(stored, entry)


def _check_noise(noise: Mapping[str, float]) -> None:
    numbers = noise.keys() == _NOISE_KEYS and all(type(value) is float for value in noise.values())
    if not numbers or not (0 < noise["clip_norm"] <= _MAX_NOISE and 0 <= noise["multiplier"] <= _MAX_NOISE):
        _refuse("noise", "to give clip_norm above 0.0 and multiplier from 0.0")


def _check_entry(stored: str, entry: TensorEntry) -> None:
    where = f"tensors.{shown(stored)}"
    _check_type(f"{where}.weight", entry.weight, str)
    check_weight_name(entry.weight)
    if entry.kind not in KINDS:
        _refuse(f"{where}.kind", f"to be one of {', '.join(KINDS)}")
    if entry.dtype not in STORED_DTYPES:
        _refuse(f"{where}.dtype", f"to be one of {', '.join(STORED_DTYPES)}")
    _check_text(f"{where}.sha256", entry.sha256, r"[0-9a-f]{64}")
    sizes = entry.shape
    if len(sizes) > MAX_AXES or any(type(size) is not int or not 1 <= size < 2**31 for size in sizes):
        _refuse(f"{where}.shape", f"to list at most {MAX_AXES} sizes of 1 or more")
    if type(entry.scale) is not float or not isfinite(entry.scale) or (entry.kind == "dense" and entry.scale != 1):
        _refuse(f"{where}.scale", "to be a finite number, and 1.0 for a dense update")


def _check_labels(labels: tuple[str, ...]) -> None:
    if not 1 <= len(labels) <= MAX_LABELS:
        _refuse("labels", f"to list 1 to {MAX_LABELS} names")
    for label in labels:
        _check_plain_name("labels", label)
    if len(set(labels)) != len(labels) or "mean" in labels:
        _refuse("labels", "to list different names, none of them mean")


def _check_dice(name: str, dice: Mapping[str, float | None], labels: tuple[str, ...]) -> None:
    if dice.keys() != {"mean", *labels}:
        _refuse(name, "to have mean and every label as keys")
    for value in dice.values():
        if value is not None and (type(value) is not float or not 0 <= value <= 1):
            _refuse(name, "to hold numbers from 0.0 to 1.0, or null")


def _check_plain_name(key: str, value: object) -> None:
    """Names that people gave: any script, but neither control characters nor what separates a path."""
    _check_type(key, value, str)
    text = str(value)
    if not 1 <= len(text) <= _PLAIN_NAME_CHARACTERS or not text.isprintable() or "/" in text or "\\" in text:
        _refuse(key, f"to be a name of 1 to {_PLAIN_NAME_CHARACTERS} printable characters without slashes")


def _check_uuid(key: str, value: object, *, version: int | None = None) -> None:
    _check_text(key, value, r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    if version is not None and UUID(str(value)).version != version:
        _refuse(key, f"to be a uuid of version {version}")


def _check_moment(created: str) -> None:
    try:
        datetime.strptime(created, "%Y-%m-%dT%H:%M%z")
    except ValueError:
        _refuse("created", "to be a moment, such as 2026-11-23T01:05Z")


def _check_text(key: str, value: object, pattern: str) -> None:
    _check_type(key, value, str)
    if not re.fullmatch(pattern, str(value)):
        _refuse(key, f"to match {pattern}")


def _check_type(key: str, value: object, expected: type) -> None:
    if type(value) is not expected:
        _refuse(key, f"to be of type {expected.__name__}")


def _check_keys(document: Mapping[str, Any], expected: frozenset[str], where: str) -> None:
    for key in sorted(document.keys() - expected):
        raise DeltaFormatError(f"expected no key {where}{shown(key)} in the manifest, found one; update dafne-dante")
    for key in sorted(expected - document.keys()):
        raise DeltaFormatError(f"expected a key {where}{key} in the manifest, found none")


def _parse_entry(name: str, entry: object) -> TensorEntry:
    where = f"tensors.{shown(name)}"
    if not isinstance(entry, dict):
        _refuse(where, "to be an object")
    _check_keys(entry, _ENTRY_KEYS, f"{where}.")
    _check_type(f"{where}.shape", entry["shape"], list)
    return TensorEntry(**{**entry, "shape": tuple(entry["shape"])})


def _refuse(key: str, expected: str) -> NoReturn:
    raise DeltaFormatError(f"expected {key} in the manifest {expected}, found another value")
