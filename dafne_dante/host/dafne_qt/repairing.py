"""Where the settings cannot be used: Dafne as it is, with the one entry that shows what is wrong and mends it.

Invariants: Dafne works in its own way until it is started again; what is sound in the settings stays as it is; reading
and writing them happens away from the thread that paints.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dafne_dante.config import look_at_settings
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.log import say_to_log
from dafne_dante.host.guarding import Guard
from dafne_dante.settings_editing import change_settings

__all__ = ["Repair", "mend"]


class Repair:
    """The hooks of `window` in a Dafne without the plugin; `why` it is without, in words."""

    def __init__(self, why: str) -> None:
        self.why, self.attached = why, None

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


def mend(folder: Path, changes: Mapping[str, Any]) -> str:
    """Change settings; what is still wrong, or what to do now, in words. SettingsError, StorageError as changing."""
    told = change_settings(folder, changes)
    faults = look_at_settings(folder).faults
    return "\n".join((words.SETTINGS_FAULTS, *faults)) if faults else f"{words.SETTINGS_MENDED} {told}".strip()
