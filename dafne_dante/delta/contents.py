"""The tensors of a delta file, checked against its manifest and its base: DESIGN's checks 5 to 8.

5. the tensor list equals the manifest's, 6. shapes fit each other and the base, 7. digests of the stored bytes,
8. finiteness.

Invariants: what passes is finite in float32 also as a dense update; no memory is taken but for the stored tensors
themselves, so a small file cannot make a large allocation.
"""

from collections.abc import Mapping

from dafne_dante.delta.envelope import Envelope
from dafne_dante.delta.manifest import Manifest, TensorEntry
from dafne_dante.delta.measuring import measured_length
from dafne_dante.delta.naming import parts_of, rows_name, shown, stored_name
from dafne_dante.delta.outline import Outline, check_outline, check_pair
from dafne_dante.delta.precision import row_count
from dafne_dante.errors import DeltaBaseError, DeltaDigestError, DeltaFormatError, DeltaShapeError
from dafne_dante.models.known_weights import digest_of
from dafne_dante.types import Weights

__all__ = ["check_contents"]


def check_contents(envelope: Envelope, base: "Weights | None") -> dict[Outline, float]:
    """The updates in an envelope, sorted by weight, after checks 5 to 8: of each its outline and its length.

    Raises:
        DeltaFormatError: tensors and manifest do not agree.
        DeltaBaseError: made from another base; None as base leaves out the comparison.
        DeltaShapeError: a tensor does not fit its partner or the base.
        DeltaDigestError: stored bytes are not those that were signed.
        DeltaValueError: a number is not finite, or its product would not be.
    """
    kinds = _check_list(envelope)
    _check_base(envelope.manifest, base)
    outlines = [_outline(envelope.manifest, weight, kind, base) for weight, kind in sorted(kinds.items())]
    for name, stored in envelope.tensors.items():
        if stored.sha256 != envelope.manifest.tensors[name].sha256:
            raise DeltaDigestError(f"expected the bytes of {shown(name)} that were signed, found others; send it again")
    return {outline: measured_length(outline, envelope.tensors) for outline in outlines}


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


def _outline(manifest: Manifest, weight: str, kind: str, base: "Weights | None") -> Outline:
    """The outline of a weight's update, after its shapes were found to fit each other and the base."""
    entries = manifest.tensors
    parts = [entries[stored_name(weight, part)] for part in parts_of(kind)]
    for part, entry in zip(parts_of(kind), parts, strict=True):
        rows = entries.get(rows_name(stored_name(weight, part)))
        if rows is not None and (rows.dtype != "F32" or rows.shape != (row_count(kind, entry.shape),)):
            raise DeltaShapeError(f"expected one F32 scale for each row of {shown(weight)}, found other row scales")
    outline = Outline(weight, kind, tuple(entry.shape for entry in parts), parts[0].scale)
    if base is None:
        check_pair(outline)
        return outline
    target = base.get(weight)
    if target is None or not target.is_floating_point():
        raise DeltaShapeError(f"expected {shown(weight)} among the base's floating-point weights, found none")
    check_outline(outline, tuple(target.shape))
    return outline
