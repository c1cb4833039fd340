"""Where the settings cannot be used: Dafne as it is, with the one entry that shows what is wrong and mends it.

Invariant: Dafne works in its own way until it is started again.
"""

from typing import Any

from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.log import say_to_log
from dafne_dante.host.guarding import Guard

__all__ = ["Repair"]


class Repair:
    """The hooks of `window` in a Dafne without the plugin; `why` it is without, in words."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.attached: Any = None

    def opened(self, window: Any) -> None:
        """Add the entry of the settings to Tools."""
        with Guard(say_to_log, words.NOT_ATTACHED):
            from dafne_dante.host.dafne_qt.repair_entry import RepairEntry  # noqa: PLC0415 (Qt)

            self.attached = RepairEntry(window.toolbox_window, self.why)

    def saved(self, window: Any) -> bool:
        """Dafne learns itself."""
        return False

    def learns(self, window: Any) -> bool:
        """Dafne learns itself."""
        return False

    def provider(self, provider: Any) -> Any:
        """Dafne's own."""
        return provider

    def closing(self, window: Any) -> None:
        """Nothing runs."""
