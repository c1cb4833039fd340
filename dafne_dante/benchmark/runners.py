"""Which runner runs a method: the seam for trainers of others."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from dafne_dante.adaptation.method import METHOD_NAMES
from dafne_dante.benchmark.outcome import Runner
from dafne_dante.benchmark.own_methods import OwnMethods
from dafne_dante.benchmark.protocol import Effort
from dafne_dante.errors import SettingsError
from dafne_dante.training.choice import AUTO

__all__ = ["METHODS", "runner_for"]

_OTHERS: Mapping[str, Callable[[Effort, Path], Runner]] = MappingProxyType({})
"""Methods of other trainers by name, for example dante-lora: what makes the runner from effort and cache folder."""
METHODS: tuple[str, ...] = (AUTO, *METHOD_NAMES, *_OTHERS)


def runner_for(method: str, effort: Effort, cache: Path) -> Runner:
    """The runner; SettingsError where nobody knows the method."""
    if method == AUTO or method in METHOD_NAMES:
        return OwnMethods(effort, cache)
    if method in _OTHERS:
        return _OTHERS[method](effort, cache)
    raise SettingsError(f"expected a method from {', '.join(METHODS)}, found {method[:60]}")
