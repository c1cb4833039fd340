"""Which runner runs a method: the seam for trainers of others."""

from pathlib import Path

from dafne_dante.adaptation.method import METHOD_NAMES
from dafne_dante.benchmark.dante_methods import DANTE_METHODS, DanteMethods
from dafne_dante.benchmark.outcome import Runner
from dafne_dante.benchmark.own_methods import OwnMethods
from dafne_dante.benchmark.protocol import Effort
from dafne_dante.errors import SettingsError
from dafne_dante.training.choice import AUTO

__all__ = ["METHODS", "runner_for"]

METHODS: tuple[str, ...] = (AUTO, *METHOD_NAMES, *DANTE_METHODS)


def runner_for(method: str, effort: Effort, cache: Path, dante: Path | None = None) -> Runner:
    """The runner; `dante` is the program `dante_train`.

    Raises:
        SettingsError: nobody knows the method, or it is Dante's and there is no program.
    """
    if method == AUTO or method in METHOD_NAMES:
        return OwnMethods(effort, cache)
    if method not in DANTE_METHODS:
        raise SettingsError(f"expected a method from {', '.join(METHODS)}, found {method[:60]}")
    if dante is None:
        raise SettingsError(f"expected the program that runs {method}, found none; name it with --dante PROGRAM")
    return DanteMethods(effort, dante)
