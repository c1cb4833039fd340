"""An update's file in the form in which it leaves: as it is, or sealed to the operator's key.

Invariants: the file in the outbox stays as it was, so that a person can see what it holds; the sealed copy lies in a
temporary folder of its own and is gone after the block; each is sealed anew, so that two tries have nothing in common
for whoever runs the server.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dafne_dante.delta.container import MAX_DELTA_BYTES
from dafne_dante.delta.sealing import SealKeyText, seal
from dafne_dante.durable import read_bounded
from dafne_dante.errors import StorageError

__all__ = ["leaving_file"]


@contextmanager
def leaving_file(path: Path, seal_key: SealKeyText) -> Iterator[Path]:
    """`path` itself where `seal_key` is "", else a copy that is sealed to it.

    Raises:
        TrustError: the key is malformed.
        StorageError: the file cannot be read, or there is no room for the copy.
    """
    if not seal_key:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="dafne-dante-") as folder:
        copy = Path(folder) / "update.sealed"
        content = seal(read_bounded(path, max_bytes=MAX_DELTA_BYTES), seal_key)
        try:
            copy.write_bytes(content)
        except OSError as error:
            raise StorageError("cannot seal an update; free space in the folder for temporary files") from error
        yield copy
