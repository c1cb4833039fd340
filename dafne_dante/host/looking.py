"""Looks again and again while a host is open, in a thread of its own.

Invariants: a look that fails ends nothing, the next one comes; what goes wrong is told once for each cause, and again
only after a look that went well; the thread ends with the host.
"""

from collections.abc import Callable
from threading import Event, Thread

from dafne_dante.host.guarding import Guard

__all__ = ["Looking"]


class Looking:
    """Calls `look` every `look_s`.

    Args:
        say: is told what goes wrong.
        name: of the thread.
        at_once: whether the first look is now, else it is after `look_s`.
    """

    def __init__(
        self,
        look: Callable[[], object],
        say: Callable[[str], None],
        *,
        name: str,
        look_s: float,
        at_once: bool = False,
    ) -> None:
        self._look, self._tell, self._name, self._look_s = look, say, name, look_s
        self._first_s = 0.0 if at_once else look_s
        self._over, self._said = Event(), ""

    def start(self) -> None:
        """Look from now on."""
        Thread(target=self._watch, name=self._name, daemon=True).start()

    def stop(self) -> None:
        """Look no more; a look that has begun goes on."""
        self._over.set()

    def _watch(self) -> None:
        pause_s = self._first_s
        while not self._over.wait(pause_s):
            pause_s = self._look_s
            with Guard(self._say):
                self._look()
                self._said = ""

    def _say(self, told: str) -> None:
        if told != self._said:
            self._said = told
            self._tell(told)
