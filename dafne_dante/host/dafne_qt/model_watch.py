"""Sees that another model is to be used now, whoever made it so: a job of this Dafne, of an earlier one, the night.

Terms: a *choice* is the version of a type that the site uses, by its number and digest; none for the global model.

Invariants: one look reads a small file for each type that was ever improved here, in a thread of its own; the first
look only remembers; of a damaged shelf the global model is the choice, as for whoever loads it.
"""

from collections.abc import Callable, Mapping

from dafne_dante.config import Settings
from dafne_dante.host.looking import Looking
from dafne_dante.plugin.local.shelf import local_shelf, local_types

__all__ = ["LOOK_S", "ModelWatch"]

LOOK_S = 1.0
Choice = tuple[int, str]
_GLOBAL: Choice = (0, "")


class ModelWatch:
    """Calls `changed` when a choice is another than at the last look.

    Args:
        settings: gives those that are in force.
        say: is told what goes wrong, once for each cause.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        changed: Callable[[], None],
        say: Callable[[str], None],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self._settings, self._changed = settings, changed
        self._looking = Looking(self.look, say, name="models", look_s=look_s, at_once=True)
        self._choices: Mapping[str, Choice] | None = None

    def start(self) -> None:
        """Look now, and from now on."""
        self._looking.start()

    def stop(self) -> None:
        """Look no more."""
        self._looking.stop()

    def look(self) -> bool:
        """Whether something changed, which is told then; StorageError where it cannot be read."""
        settings = self._settings()
        found = {model_type: _choice(settings, model_type) for model_type in local_types(settings)}
        before, self._choices = self._choices, found
        if before is None:
            return False
        types = {*before, *found}
        changed = any(before.get(one, _GLOBAL) != found.get(one, _GLOBAL) for one in types)
        if changed:
            self._changed()
        return changed


def _choice(settings: Settings, model_type: str) -> Choice:
    current = local_shelf(settings, model_type).state().current
    return _GLOBAL if current is None else (current.number, current.model)
