"""`annotated.json` beside a case's NIfTI files: which of its slices somebody labelled, and what its labels are called.

    {"format": "dafne-dante-annotated", "version": 1,
     "annotated": [3, 4], "slices": 20, "masks": {"mask_a.nii.gz": "a"}}

Terms: slices are counted from 0 along the third axis of the image's file, as it is stored. `masks` gives a file's
label where no file can be called so.

Invariants: the file is untrusted: bounded, every entry checked, and the names in it are compared and never opened.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dafne_dante.durable import read_bounded
from dafne_dante.errors import AnnotationError

__all__ = ["SIDECAR", "Sidecar", "encode_sidecar", "read_sidecar"]

SIDECAR = "annotated.json"
_FORMAT = "dafne-dante-annotated"
_VERSION = 1
_MAX_BYTES = 1 << 20
_MAX_SLICES = 1 << 16


@dataclass(frozen=True)
class Sidecar:
    """What such a file says: labelled slices by number, how many slices there are, and labels by file name."""

    annotated: tuple[int, ...]
    slices: int
    masks: Mapping[str, str]


def encode_sidecar(annotated: Iterable[int], slices: int, masks: Mapping[str, str]) -> bytes:
    """The content of the file."""
    facts = {
        "format": _FORMAT, "version": _VERSION, "annotated": list(annotated), "slices": slices, "masks": dict(masks)
    }  # fmt: skip
    return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()


def read_sidecar(folder: Path) -> Sidecar | None:
    """What the folder's file says; None when it has none.

    Raises:
        AnnotationError: it is not such a file, or of a later version.
        StorageError: it cannot be read.
    """
    if not (folder / SIDECAR).is_file():
        return None
    content = read_bounded(folder / SIDECAR, max_bytes=_MAX_BYTES)
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refused("JSON, found a fault in it") from error
    if not isinstance(facts, dict) or (facts.get("format"), facts.get("version")) != (_FORMAT, _VERSION):
        raise _refused(f"the format {_FORMAT} {_VERSION}, found another")
    slices, annotated, masks = (facts.get(name) for name in ("slices", "annotated", "masks"))
    if (
        not isinstance(slices, int)
        or not _is_count(slices, _MAX_SLICES)
        or not isinstance(annotated, list)
        or len(annotated) > slices
    ):
        raise _refused("how many slices there are, and a list of those that were labelled")
    if not all(_is_count(one, slices - 1) for one in annotated):
        raise _refused(f"numbers of slices from 0 to {slices - 1}, found others")
    if not isinstance(masks, dict) or not all(isinstance(label, str) for label in masks.values()):
        raise _refused("the label of each file under masks, found something else")
    return Sidecar(tuple(annotated), slices, masks)


def _is_count(value: Any, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest


def _refused(expected: str) -> AnnotationError:
    return AnnotationError(f"{SIDECAR}: expected {expected}; export the case again, or remove the file")
