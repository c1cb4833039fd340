"""Weights of a version that many updates are compared with: their digest and their length are found once.

Invariant: whoever makes one never writes to its tensors.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property

from torch import Tensor

from dafne_dante.models.global_model import digest_weights

__all__ = ["KnownWeights", "digest_of"]


class KnownWeights(Mapping[str, Tensor]):
    """State-dict name to tensor, as in the mapping that it was made from."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = dict(weights)
        self.length: float | None = None
        """L2 norm over the floating-point weights, None until somebody found it (`delta.difference`)."""

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    @cached_property
    def digest(self) -> str:
        """As `digest_weights`."""
        return digest_weights(self._weights)


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """As `digest_weights`, but of known weights only the first time."""
    return weights.digest if isinstance(weights, KnownWeights) else digest_weights(weights)
