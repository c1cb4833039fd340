"""Metadata of a foreign file reduced to plain Python values.

Terms: *plain* is None, bool, int, float, str, and lists, tuples and dictionaries of them.

Invariants: numpy numbers were numbers already, small arrays become lists; whatever else is found (tensors, bytes,
large arrays, paths) is left out together with its key; the work is bounded, because a pickle can mention one object a
million times or inside itself.
"""

import re
from collections.abc import Mapping
from typing import Any

from dafne_dante.errors import DamagedModelError
from dafne_dante.models.reconstruct import PendingArray

__all__ = ["keep_plain", "without_paths"]

_MAX_DEPTH = 32
_MAX_COST = 16_000_000
_VALUE_COST = 64
_MAX_ARRAY = 4096
_DROPPED = object()
_ABSOLUTE = re.compile(r"\s*(/|~|\\\\|[A-Za-z]:[\\/]|file:)")


def keep_plain(value: Any) -> dict[Any, Any]:
    """The plain part of a dictionary read by pickle_reader.

    Raises:
        DamagedModelError: not a dictionary, nested deeper than 32 levels, or more than 16 million characters or a
            quarter of a million values.
    """
    if not isinstance(value, dict):
        raise DamagedModelError(f"expected metadata as a dictionary, found {type(value).__name__}")
    kept: dict[Any, Any] = _Walk().plain(value, 0)
    return kept


def without_paths(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The plain dictionary without texts that look like absolute paths, which name their maker's folders."""
    kept: dict[Any, Any] = _drop_paths(dict(values))
    return kept


class _Walk:
    """One walk through a value; counts what it visits."""

    def __init__(self) -> None:
        self.cost = 0

    def plain(self, value: Any, depth: int) -> Any:
        self.cost += _VALUE_COST + (len(value) if isinstance(value, str) else 0)
        if depth > _MAX_DEPTH or self.cost > _MAX_COST:
            raise DamagedModelError(f"expected metadata of at most {_MAX_DEPTH} levels and 16 MB of text, found more")
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, PendingArray):
            return self.array(value)
        if isinstance(value, dict):
            return {self.plain(key, depth): item for key, item in self.items(value, depth) if item is not _DROPPED}
        if isinstance(value, (list, tuple)):
            kept = (self.plain(item, depth + 1) for item in value)
            return type(value)(item for item in kept if item is not _DROPPED)
        return _DROPPED

    def array(self, value: PendingArray) -> Any:
        if value.size > _MAX_ARRAY:
            return _DROPPED
        self.cost += _VALUE_COST * value.size
        return value.to_list()

    def items(self, value: dict[Any, Any], depth: int) -> list[tuple[Any, Any]]:
        return [(key, self.plain(item, depth + 1)) for key, item in value.items()]


def _drop_paths(value: Any) -> Any:
    if isinstance(value, str):
        return _DROPPED if _ABSOLUTE.match(value) else value
    if isinstance(value, dict):
        kept = {key: _drop_paths(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not _DROPPED}
    if isinstance(value, (list, tuple)):
        return type(value)(item for item in map(_drop_paths, value) if item is not _DROPPED)
    return value
