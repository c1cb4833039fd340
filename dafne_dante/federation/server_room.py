"""How much the embedded server still takes: of one user, and of its disk.

Terms: what a user *holds* are their uploads that nobody has merged yet and the parts of files on their way in, of all
types; the *reserve* is free space that no upload uses, so that accounts, logs and the operator's work never meet a full
disk.

Invariants: nothing is kept that takes a user above their share; a file is refused before it is read where its announced
length would touch the reserve, and again before it is kept. Both refusals may pass when the operator has merged, so
they carry Retry-After, and our sites keep the update.
"""

import shutil
import tempfile
from pathlib import Path

from dafne_dante.errors import StorageError
from dafne_dante.federation.server_limits import ServerLimits
from dafne_dante.federation.shelf import Shelf

__all__ = ["Room"]


class Room:
    """The space of one server; `root` is its folder."""

    def __init__(self, root: Path, shelf: Shelf, limits: ServerLimits) -> None:
        self._root, self._shelf, self._limits = root, shelf, limits

    def takes(self, count: int) -> bool:
        """Whether `count` more bytes leave the reserve free, and fit where forms are spooled.

        Raises:
            StorageError: the disk does not say.
        """
        try:
            free, spool = shutil.disk_usage(self._root).free, shutil.disk_usage(tempfile.gettempdir()).free
        except OSError as error:
            raise StorageError(f"cannot tell the free space: {error.strerror or type(error).__name__}") from error
        return free - count >= self._limits.reserve_bytes and spool >= count

    def takes_from(self, user: str, count: int) -> bool:
        """Whether this user may send another file, or part of one, of `count` bytes; StorageError as `takes`."""
        files, held = self._shelf.held_by(user)
        return files < self._limits.pending_files and held + count <= self._limits.pending_bytes
