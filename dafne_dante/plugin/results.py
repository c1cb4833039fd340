"""A folder of results that is filled completely or left as it was.

Terms: results are written into a hidden *staging* folder inside the folder that was asked for, so that it is known at
once whether that folder can be written to and has the same disk; they move out together when all are there.

Invariants: when the block fails, or is interrupted, the folder holds what it held before, and folders that were made
for it are gone; every file of a result is whole at any time.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dafne_dante.durable import make_folder, move_file
from dafne_dante.errors import StorageError

__all__ = ["results_folder"]


@contextmanager
def results_folder(out: Path) -> Iterator[Path]:
    """Give a staging folder; its files replace those of the same names in `out` when the block ends well.

    Raises:
        StorageError: `out` cannot be made or written to.
    """
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    staging: Path | None = None
    try:
        staging = _make_staging(make_folder(out))
        yield staging
        for path in sorted(staging.iterdir()):
            move_file(path, out / path.name)
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):  # not empty: the results are in it
                folder.rmdir()


def _make_staging(out: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(dir=out, prefix=".", suffix=".part"))
    except OSError as error:
        raise StorageError(
            f"cannot write into the folder {out.name}: {error.strerror or type(error).__name__}; choose another folder"
        ) from error
