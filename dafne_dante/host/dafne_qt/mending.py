"""Settings that cannot be used, changed until they can.

Invariant: what is sound in the file stays as it is, and nothing is written that could not be used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dafne_dante.config import look_at_settings
from dafne_dante.host.dafne_qt import words
from dafne_dante.settings_editing import change_settings

__all__ = ["mend"]


def mend(folder: Path, changes: Mapping[str, Any]) -> str:
    """Change settings; what is still wrong, or what to do now, in words. SettingsError, StorageError as changing."""
    told = change_settings(folder, changes)
    faults = look_at_settings(folder).faults
    return "\n".join((words.SETTINGS_FAULTS, *faults)) if faults else f"{words.SETTINGS_MENDED} {told}".strip()
