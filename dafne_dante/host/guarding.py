"""The border between a host and the plugin: what goes wrong in the plugin stays there, and is told.

Invariants: a DanteError is told with its words, anything else by the name of its class only, since its words may hold
what is a patient's; what ends the program (Ctrl-C, SystemExit) is never held up.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from dafne_dante.errors import DanteError

__all__ = ["Guard", "guarded"]

UNEXPECTED = "a fault of the plugin's own, {kind}; please report it"


class Guard(AbstractContextManager[None]):
    """What stands in its block may fail without the host.

    Args:
        say: is told, in one sentence.
        form: of that sentence; `{why}` stands for the reason.
    """

    def __init__(self, say: Callable[[str], None], form: str = "{why}") -> None:
        self._say, self._form = say, form

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Whether the block failed in a way that the host need not know."""
        if not isinstance(error, Exception):
            return False
        why = str(error) if isinstance(error, DanteError) else UNEXPECTED.format(kind=type(error).__name__)
        self._say(self._form.format(why=why))
        return True


def guarded(work: Callable[..., object], say: Callable[[str], None], form: str = "{why}") -> Callable[..., None]:
    """The same function, for a host to call: nothing comes back, neither an answer nor a fault."""

    def call(*arguments: Any) -> None:
        with Guard(say, form):
            work(*arguments)

    return call
