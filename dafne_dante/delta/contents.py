"""The tensors of a delta file, checked against its manifest and its base: DESIGN's checks 5 to 8.

5. the tensor list equals the manifest's, 6. shapes fit each other and the base, 7. digests of the stored bytes,
8. finiteness.

Invariants: what comes back is finite in float32 also as a dense update; no memory is taken but for the stored tensors
themselves, so a small file cannot make a large allocation.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from dafne_dante.adaptation.low_rank import FORMS, LowRank
from dafne_dante.delta.difference import WeightUpdate, check_fit, is_finite
from dafne_dante.delta.envelope import Envelope
from dafne_dante.delta.manifest import Manifest, TensorEntry
from dafne_dante.delta.naming import parts_of, rows_name, shown, stored_name
from dafne_dante.delta.precision import restore, row_count
from dafne_dante.errors import (
    DeltaBaseError,
    DeltaDigestError,
    DeltaFormatError,
    DeltaShapeError,
    DeltaValueError,
)
from dafne_dante.models.known_weights import digest_of
from dafne_dante.types import Weights

__all__ = ["read_updates"]

_LARGEST = torch.finfo(torch.float32).max


def read_updates(envelope: Envelope, base: "Weights | None") -> tuple[WeightUpdate, ...]:
    """The updates in an envelope, sorted by weight, after checks 5 to 8.

    Raises:
        DeltaFormatError: tensors and manifest do not agree.
        DeltaBaseError: made from another base; None as base leaves out the comparison.
        DeltaShapeError: a tensor does not fit its partner or the base.
        DeltaDigestError: stored bytes are not those that were signed.
        DeltaValueError: a number is not finite, or its product would not be.
    """
    kinds = _check_list(envelope)
    _check_base(envelope.manifest, base)
    for weight, kind in kinds.items():
        _check_shapes(envelope.manifest, weight, kind, base)
    for name, stored in envelope.tensors.items():
        if stored.sha256 != envelope.manifest.tensors[name].sha256:
            raise DeltaDigestError(f"expected the bytes of {shown(name)} that were signed, found others; send it again")
    return tuple(_restored(envelope, weight, kind) for weight, kind in sorted(kinds.items()))


def _check_list(envelope: Envelope) -> dict[str, str]:
    """Weight to kind, after the header's tensors were found to be the manifest's and to make whole updates."""
    entries = envelope.manifest.tensors
    if different := sorted(entries.keys() ^ envelope.tensors.keys()):
        where = "manifest" if different[0] in entries else "header"
        raise DeltaFormatError(
            f"expected the same tensors in header and manifest, found {shown(different[0])} in the {where} only"
        )
    for name, stored in envelope.tensors.items():
        if (stored.dtype, stored.shape) != (entries[name].dtype, entries[name].shape):
            raise DeltaFormatError(f"expected {shown(name)} with the manifest's dtype and shape, found others")
    kinds = {entry.weight: entry.kind for entry in entries.values()}
    expected = {name for weight, kind in kinds.items() for name in _expected_names(entries, weight, kind)}
    if different := sorted(expected ^ entries.keys()):
        raise DeltaFormatError(f"expected every part of an update once, found it otherwise at {shown(different[0])}")
    return kinds


def _expected_names(entries: Mapping[str, TensorEntry], weight: str, kind: str) -> list[str]:
    """The stored names of a weight's update, whose entries must agree about weight, kind and scale."""
    names: list[str] = []
    for part in parts_of(kind):
        name = stored_name(weight, part)
        names.append(name)
        if name in entries and entries[name].dtype == "I8":
            names.append(rows_name(name))
    said = {(entries[name].weight, entries[name].kind, entries[name].scale) for name in names if name in entries}
    if len(said) > 1 or any(found[0] != weight for found in said):
        raise DeltaFormatError(f"expected one weight, kind and scale for all parts of {shown(weight)}, found several")
    return names


def _check_base(manifest: Manifest, base: "Weights | None") -> None:
    if base is not None and digest_of(base) != manifest.base_sha256:
        raise DeltaBaseError("expected a delta of this base model, found one of another; take the base that it names")


def _check_shapes(manifest: Manifest, weight: str, kind: str, base: "Weights | None") -> None:
    entries = manifest.tensors
    for part in parts_of(kind):
        entry, rows = entries[stored_name(weight, part)], entries.get(rows_name(stored_name(weight, part)))
        if rows is not None and (rows.dtype != "F32" or rows.shape != (row_count(kind, entry.shape),)):
            raise DeltaShapeError(f"expected one F32 scale for each row of {shown(weight)}, found other row scales")
    # Tensors on the meta device have a shape and no memory.
    shapes = [entries[stored_name(weight, part)].shape for part in parts_of(kind)]
    update = _assemble(weight, kind, [torch.empty(shape, device="meta") for shape in shapes], 1.0)
    if base is not None:
        target = base.get(weight)
        if target is None or not target.is_floating_point():
            raise DeltaShapeError(f"expected {shown(weight)} among the base's floating-point weights, found none")
        check_fit(update, tuple(target.shape))
    elif isinstance(update.value, LowRank):
        _check_pair(weight, update.value)


def _check_pair(weight: str, value: LowRank) -> None:
    """What can be said of two factors without their weight."""
    a, b = value.a.shape, value.b.shape
    axes = 3 if value.form == "lora-channel" else 2
    if len(a) != axes or len(b) != axes or a[:-2] != b[:-2] or a[-1] != b[-2] or a[-1] > min(a[-2], b[-1]):
        raise DeltaShapeError(f"expected factors of {shown(weight)} that belong together, found {tuple(a)}, {tuple(b)}")


def _assemble(weight: str, kind: str, parts: list[Tensor], scale: float) -> WeightUpdate:
    if kind not in FORMS:
        return WeightUpdate(weight, parts[0])
    return WeightUpdate(weight, LowRank(kind, parts[0], parts[1], scale))


def _restored(envelope: Envelope, weight: str, kind: str) -> WeightUpdate:
    stored = {name: envelope.tensors[name] for name in _expected_names(envelope.manifest.tensors, weight, kind)}
    for name, tensor in stored.items():
        if tensor.dtype != "I8" and not is_finite(tensor.to_tensor()):
            raise DeltaValueError(f"expected finite numbers in {shown(name)}, found NaN or infinity")
    scale = envelope.manifest.tensors[stored_name(weight, parts_of(kind)[0])].scale
    empty = [torch.empty(0)] * len(parts_of(kind))
    update = restore(weight, stored, _assemble(weight, kind, empty, scale))
    if not _stays_finite(update):
        raise DeltaValueError(f"expected an update of {shown(weight)} within float32, found one that overflows")
    return update


def _stays_finite(update: WeightUpdate) -> bool:
    """Whether the dense form is finite however its sums are ordered: |s| r max|A| max|B| is a bound of every step."""
    value = update.value
    if not isinstance(value, LowRank):
        return is_finite(value)
    highest_a, highest_b = float(value.a.abs().max()), float(value.b.abs().max())
    return max(1.0, abs(value.scale)) * value.rank * highest_a * highest_b <= _LARGEST and highest_a <= _LARGEST
