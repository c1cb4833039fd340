"""What the labels of a BIDS segmentation are called: by its look-up table, its name, or its sidecar.

- `_dseg` (discrete): the columns `index` and `name` of `_dseg.tsv`, or `LabelMap` of the JSON sidecar. The table
  belongs to the file when its entities are a part of the file's, in its folder or one above it in the dataset; the
  nearest, then the most specific one counts (BIDS, "The inheritance principle").
- `_mask`: the entity `label`, else `desc`, else `Type` of the JSON sidecar (BIDS, "Imaging derivatives").

Invariants: a value without a name is never guessed; tables are bounded, and every entry is checked.
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.bids_files import BidsFile, entities_of
from dafne_dante.annotations.nifti.files import checked_label, list_folder
from dafne_dante.durable import read_bounded
from dafne_dante.errors import AnnotationError

__all__ = ["discrete_labels", "mask_label", "sidecar"]

_MAX_BYTES = 4 << 20
_MAX_VALUE = 255


def discrete_labels(file: BidsFile) -> dict[str, int]:
    """Label to value (1 to 255) of a `_dseg` file, by value.

    Raises:
        AnnotationError: there is no table, two of equal rank, or a fault in it.
        StorageError: it cannot be read.
    """
    table = _nearest(file, ".tsv")
    if table is not None:
        return _checked(_rows(table), table.name)
    declared = sidecar(file).get("LabelMap")
    if isinstance(declared, dict):
        return _checked(declared.items(), "LabelMap")
    raise AnnotationError(
        f"{file.path.name}: expected names of its values in {file.suffix}.tsv (columns index and name), found no such "
        "table; add it"
    )


def mask_label(file: BidsFile) -> str:
    """The label of a `_mask` file; AnnotationError when nothing tells it."""
    found = file.entities.get("label") or file.entities.get("desc") or sidecar(file).get("Type")
    if found is None:
        raise AnnotationError(f"{file.path.name}: expected label-<name> in its name, found none; rename the file")
    return checked_label(found, file.path.name)


def sidecar(file: BidsFile) -> dict[str, Any]:
    """The nearest JSON sidecar of the file; empty when there is none.

    Raises:
        AnnotationError: two of equal rank, or a fault in it.
        StorageError: it cannot be read.
    """
    path = _nearest(file, ".json")
    if path is None:
        return {}
    try:
        found = json.loads(read_bounded(path, max_bytes=_MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path.name}: expected JSON, found a fault in it; correct it") from error
    if not isinstance(found, dict):
        raise AnnotationError(f"{path.name}: expected an object, found something else; correct it")
    return found


def _nearest(file: BidsFile, ending: str) -> Path | None:
    folder = file.path.parent
    while True:
        fitting: dict[int, list[Path]] = {}
        for path in list_folder(folder):
            if path.name.endswith(ending) and path.is_file():
                parsed = entities_of(path.name[: -len(ending)])
                if parsed and parsed[1] == file.suffix and parsed[0].items() <= file.entities.items():
                    fitting.setdefault(len(parsed[0]), []).append(path)
        if fitting:
            best = fitting[max(fitting)]
            if len(best) > 1:
                names = " and ".join(path.name for path in best[:2])
                raise AnnotationError(f"{file.path.name}: expected one table or sidecar, found {names}; remove one")
            return best[0]
        if folder == file.root:
            return None
        folder = folder.parent


def _rows(table: Path) -> list[tuple[str, str]]:
    try:
        text = read_bounded(table, max_bytes=_MAX_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(text.splitlines(), dialect="excel-tab"))
    except (ValueError, csv.Error) as error:
        raise AnnotationError(f"{table.name}: expected a table with tabs, found a fault in it; correct it") from error
    if not rows or not {"index", "name"} <= rows[0].keys():
        raise AnnotationError(f"{table.name}: expected the columns index and name, found others; correct it")
    return [(row["index"], row["name"]) for row in rows]


def _checked(pairs: Iterable[tuple[Any, Any]], source: str) -> dict[str, int]:
    found: dict[int, str] = {}
    for value, name in pairs:
        number = str(value).strip()
        if not (number.isascii() and number.isdigit() and len(number) <= 3 and int(number) <= _MAX_VALUE):
            raise AnnotationError(f"{source}: expected values that are whole numbers from 0 to {_MAX_VALUE}")
        if int(number) in found:
            raise AnnotationError(f"{source}: expected every value once, found {number} twice")
        found[int(number)] = checked_label(name, source)
    found.pop(0, None)
    if not found or len({label_key(name) for name in found.values()}) != len(found):
        raise AnnotationError(f"{source}: expected at least one label, each with a name of its own")
    return {found[value]: value for value in sorted(found)}
