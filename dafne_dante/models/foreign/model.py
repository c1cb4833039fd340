"""A model that only code of its own can build, read as data.

Invariants: reading runs nothing; `sha256` is the digest of the very bytes that were read, so that what a site named
in its settings is what will be run, and the file on disk is not looked at again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from torch import Tensor

from dafne_dante.durable import read_bounded
from dafne_dante.errors import UnsupportedModelError
from dafne_dante.models.document import (
    read_document,
    read_metadata,
    read_model_id,
    read_sources,
    read_timestamp,
    read_weights,
)
from dafne_dante.models.file import MAX_BYTES
from dafne_dante.models.foreign.consent import FOREIGN_TYPES
from dafne_dante.models.plain_values import without_paths

__all__ = ["ForeignModel", "parse_foreign_model", "read_foreign_model"]

_MAX_PARTS = 64


@dataclass(frozen=True, eq=False)
class ForeignModel:
    """A model whose network its own code builds.

    Attributes:
        sha256: of the file, 64 hexadecimal digits.
        kind: Dafne's type, one of FOREIGN_TYPES.
        dimensions: 2 (the code takes slices) or 3 (volumes).
        weights: one set of tensors by name for each network; more than one in an ensemble only.
        metadata: plain values without paths.
        sources: function name to source text; run in the isolated child only.
    """

    sha256: str
    kind: str
    model_id: UUID
    timestamp: int
    dimensions: int
    weights: tuple[Mapping[str, Tensor], ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def read_foreign_model(path: Path, *, max_bytes: int = MAX_BYTES) -> ForeignModel:
    """Read a file once; errors as parse_foreign_model, and StorageError when it is missing or too long."""
    return parse_foreign_model(read_bounded(path, max_bytes=max_bytes))


def parse_foreign_model(content: bytes) -> ForeignModel:
    """Read a model from the bytes of a `.model` file, whether it has net_metadata or not; nothing is run.

    Raises:
        UnsafeModelError, DamagedModelError: as models.file.parse_model.
        UnsupportedModelError: another type, a difference of models, or no functions that build and apply a network.
    """
    document = read_document(content)
    kind = document.get("type")
    if kind not in FOREIGN_TYPES or document.get("is_delta") not in (False, None):
        raise UnsupportedModelError(f"expected a whole model of type {', '.join(FOREIGN_TYPES)}, found another")
    sources = read_sources(document)
    if not {"init_model_function", "apply_model_function"} <= sources.keys():
        raise UnsupportedModelError("expected functions that build and apply the network, found none; ask its maker")
    dimensions = document.get("data_dimensionality")
    if type(dimensions) is not int or dimensions not in (2, 3):
        raise UnsupportedModelError("expected data_dimensionality 2 or 3, found something else; ask the model's maker")
    return ForeignModel(
        sha256=hashlib.sha256(content).hexdigest(),
        kind=kind,
        model_id=read_model_id(document.get("model_id")),
        timestamp=read_timestamp(document.get("timestamp_id")),
        dimensions=dimensions,
        weights=_parts(document.get("weights"), max_bytes=2 * len(content)),
        metadata=without_paths(read_metadata(document)),
        sources=sources,
    )


def _parts(found: Any, *, max_bytes: int) -> tuple[Mapping[str, Tensor], ...]:
    """An ensemble has a list of sets of weights, which share the bound."""
    if not isinstance(found, list):
        return (read_weights(found, max_bytes=max_bytes),)
    if not 1 <= len(found) <= _MAX_PARTS:
        raise UnsupportedModelError(f"expected 1 to {_MAX_PARTS} networks in an ensemble, found {len(found)}")
    parts = []
    for one in found:
        parts.append(read_weights(one, max_bytes=max_bytes))
        max_bytes -= sum(tensor.numel() * tensor.element_size() for tensor in parts[-1].values())
    return tuple(parts)
