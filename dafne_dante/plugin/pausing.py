"""The pause switch: while it is on, nothing is improved that nobody asked for just now.

Invariants: what is saved in Dafne is kept and its job is put into the queue, to begin when the pause ends; the button
and the command line go on; a job that runs goes on.
"""

from dafne_dante.config import Settings
from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import StorageError

__all__ = ["is_paused", "set_paused"]

_FILE = "paused"


def is_paused(settings: Settings) -> bool:
    """Whether jobs after a save and of the night wait."""
    return (settings.folder / _FILE).is_file()


def set_paused(settings: Settings, *, paused: bool) -> None:
    """Pause, or go on; StorageError where the disk refuses."""
    if paused:
        write_atomically(make_folder(settings.folder) / _FILE, b"paused\n")
        return
    try:
        (settings.folder / _FILE).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot end the pause: {error.strerror or type(error).__name__}") from error
