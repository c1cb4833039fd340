"""While Dafne is open: what waits in the outbox is sent when it is due, and newer global models are compared.

Terms: an improved model is *behind* as in `plugin.local.updating`, where the comparison is done, in its own process.

Invariants: nothing happens while the plugin is paused; at most one comparison at a time, and of one type at most one in
`_AGAIN_S`; closing Dafne ends none; what goes wrong is told once for each cause and tried again at a later look.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from dafne_dante.config import Settings
from dafne_dante.federation.sending import Tried
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.desk import Desk
from dafne_dante.host.guarding import Guard
from dafne_dante.host.looking import Looking
from dafne_dante.plugin.delivering import send_what_waits, sent_in_words
from dafne_dante.plugin.local.updating import UpdateProcess, is_behind
from dafne_dante.plugin.pausing import is_paused

__all__ = ["Tending", "Updating"]

_LOOK_S = 20.0
_AGAIN_S = 600.0


class Updating(Protocol):
    """What is needed of an `UpdateProcess`."""

    def start(self) -> None:
        """Begin."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""

    @property
    def told(self) -> str:
        """What came of it, in words."""


class Tending:
    """Looks every `look_s` after what nobody waits for.

    Args:
        say: is told what was sent, what came of a comparison, and what goes wrong.
        make_update: a comparison of the type with this name.
        sending: sends what is due.
    """

    def __init__(
        self,
        desk: Desk,
        say: Callable[[str], None],
        *,
        make_update: Callable[[Settings, str], Updating] = UpdateProcess,
        sending: Callable[[Settings], Sequence[Tried]] = send_what_waits,
        look_s: float = _LOOK_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk, self._tell, self._make_update, self._sending = desk, say, make_update, sending
        self._now_s = now_s
        self._looking = Looking(self.look, self._say, name="tending", look_s=look_s)
        self._update: tuple[str, Updating] | None = None
        self._begun_s: dict[str, float] = {}
        self._said = ""

    def start(self) -> None:
        """Look from now on."""
        self._looking.start()

    def stop(self) -> None:
        """Look no more; what runs goes on."""
        self._looking.stop()

    def look(self) -> None:
        """Everything that is due now."""
        with Guard(self._say):
            self._end_update()
        if is_paused(self._desk.settings):
            return
        with Guard(self._say, words.NOT_SENT):
            if tried := self._sending(self._desk.settings):
                self._say(sent_in_words(tried))
        with Guard(self._say):
            self._begin_update()

    def _end_update(self) -> None:
        """When a comparison is over, Dafne loads what came of it."""
        if self._update is None or not self._update[1].is_over:
            return
        (model_type, update), self._update = self._update, None
        newest = self._desk.newer.get(model_type, "")
        if not is_behind(self._desk.settings, model_type, newest):
            self._desk.newer.pop(model_type, None)
            self._desk.forget_models()
        self._say(f"{model_type}: {update.told}")

    def _begin_update(self) -> None:
        settings = self._desk.settings
        if self._update is not None or not settings.server:
            return
        for model_type, newest in sorted(self._desk.newer.items()):
            last_s = self._begun_s.get(model_type, -_AGAIN_S)
            if self._now_s() - last_s >= _AGAIN_S and is_behind(settings, model_type, newest):
                self._begun_s[model_type] = self._now_s()
                update = self._make_update(settings, model_type)
                update.start()
                self._update = model_type, update
                return

    def _say(self, told: str) -> None:
        if told != self._said:
            self._said = told
            self._tell(told)
