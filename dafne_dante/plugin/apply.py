"""A delta added to its base model: the same arithmetic for a site's improved model, `apply` and the merger."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dafne_dante.delta.decode import decode_delta
from dafne_dante.delta.difference import WeightUpdate, apply_updates
from dafne_dante.delta.manifest import Manifest
from dafne_dante.durable import read_bounded
from dafne_dante.errors import IncompatibleModelError
from dafne_dante.models.build import tie_aliases
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import GlobalModel

__all__ = ["apply_delta_file", "updated_model", "updated_weights"]

_MAX_BYTES = 2 * 1024**3


def updated_weights(model: GlobalModel, updates: Iterable[WeightUpdate]) -> Mapping[str, Tensor]:
    """The model's weights plus the updates, every alias following its tensor; the model is not changed."""
    return tie_aliases(model.plan, apply_updates(model.weights, updates))


def updated_model(model: GlobalModel, updates: Iterable[WeightUpdate], *, timestamp: int) -> GlobalModel:
    """The same family with new weights and a new timestamp."""
    return replace(model, weights=updated_weights(model, updates), timestamp=timestamp)


def apply_delta_file(base: Path, delta: Path) -> tuple[GlobalModel, Manifest]:
    """Read both files, check the delta against its base (any signer, but a valid signature) and add it.

    The result keeps the base's timestamp: the same two files give the same model.

    Raises:
        ModelError: the base is refused.
        DeltaError: the delta is refused, or is another base's.
    """
    model = read_model(base)
    content = read_bounded(delta, max_bytes=_MAX_BYTES)
    decoded = decode_delta(content, base=model.weights, trusted_keys=None)
    if decoded.manifest.model_id != str(model.model_id):
        raise IncompatibleModelError("expected a delta of this model's family, found another; use its own base")
    return updated_model(model, decoded.updates, timestamp=model.timestamp), decoded.manifest
