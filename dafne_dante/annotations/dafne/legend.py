"""The table that Dafne writes beside a compact export: which number stands for which label.

Facts, from reading Dafne 2.1.0a0 (`utils/mask_utils.py`): a line "Value,Label", then "<number>,<name>" a line, from 1
on, in the encoding of the machine and without quotes round a name, whatever is in it. Beside the slices of a DICOM
export it is called `legend.csv`; beside a NIfTI file `<name>.nii.gz` it is `<name>.nii.gz.csv`. The second table, for
ITK-SNAP, says the same once more.

Invariants: numbers and names are there once each; nothing else of the file is used.
"""

from pathlib import Path

from dafne_dante.annotations.nifti.files import checked_label
from dafne_dante.durable import read_bounded
from dafne_dante.errors import AnnotationError

__all__ = ["MAX_VALUE", "read_legend"]

MAX_VALUE = 65_534
"""The greatest number that may stand for a label."""

_START = "Value,Label"
_MAX_BYTES = 1 << 20


def read_legend(path: Path) -> dict[str, int]:
    """Label to number, in the order of the file.

    Raises:
        AnnotationError: not such a table, or a number or a name that is there twice.
        StorageError: the file cannot be read, or is too long.
    """
    content = read_bounded(path, max_bytes=_MAX_BYTES)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = content.decode("cp1252", errors="replace").splitlines()  # Dafne on Windows
    rows = [line.partition(",") for line in lines[1:] if line.strip()]
    values = [_number(value) for value, _, _ in rows]
    if not lines or lines[0].strip() != _START or not rows or not all(0 < value <= MAX_VALUE for value in values):
        raise AnnotationError(f"{path.name}: expected {_START!r} and a number and a name a line; export it again")
    found = {checked_label(name, path.name): value for value, (_, _, name) in zip(values, rows, strict=True)}
    if len(found) != len(rows) or len(set(values)) != len(rows):
        raise AnnotationError(f"{path.name}: expected every number and every name once, found one twice; correct it")
    return found


def _number(text: str) -> int:
    """The whole number; 0, which stands for no label, where it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 5 else 0
