"""What the labels of a BIDS segmentation are called: by its look-up table, its name, or its sidecar.

- `_dseg` (discrete): the columns `index` and `name` of `_dseg.tsv`, or `LabelMap` of the JSON sidecar.
- `_mask`: the entity `label`, else `desc`, else `Type` of the JSON sidecar (BIDS, "Imaging derivatives").

A table or sidecar belongs to a file when it has its suffix and no entity that the file has not, in the file's folder
or one above it in the dataset (BIDS, "The inheritance principle"). Of tables the nearest counts; of sidecars each
adds to those above it. The principle allows one in a folder; of several, the one with the most entities counts.

Invariants: a value without a name is never guessed; tables are bounded, and every entry is checked.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.bids_names import BidsFile, entities_of
from dafne_dante.annotations.nifti.files import checked_label, list_folder
from dafne_dante.durable import read_bounded
from dafne_dante.errors import AnnotationError

__all__ = ["SideFiles", "discrete_labels", "mask_label"]

_MAX_BYTES = 4 << 20
_MAX_VALUE = 255
_ENDINGS = (".tsv", ".json")
_NOTHING = "n/a"  # BIDS, "Tabular files"


class SideFiles:
    """The tables and sidecars of a dataset; every folder is listed once. Used for one search."""

    def __init__(self) -> None:
        self._listed: dict[Path, list[tuple[Path, dict[str, str], str]]] = {}

    def table(self, file: BidsFile) -> Path | None:
        """The look-up table of the file; AnnotationError for two of equal rank."""
        return next(self._applicable(file, ".tsv"), None)

    def sidecar(self, file: BidsFile) -> dict[str, Any]:
        """What the JSON sidecars of the file say; empty when there is none.

        Raises:
            AnnotationError: two of equal rank, or a fault in one.
            StorageError: one cannot be read.
        """
        merged: dict[str, Any] = {}
        for path in reversed(list(self._applicable(file, ".json"))):
            merged |= _read_sidecar(path)
        return merged

    def _applicable(self, file: BidsFile, ending: str) -> Iterator[Path]:
        """The nearest first, one a folder."""
        folder = file.path.parent
        while True:
            fitting: dict[int, list[Path]] = {}
            for path, entities, suffix in self._in(folder):
                if path.suffix == ending and suffix == file.suffix and entities.items() <= file.entities.items():
                    fitting.setdefault(len(entities), []).append(path)
            if fitting:
                best = fitting[max(fitting)]
                if len(best) > 1:
                    names = " and ".join(path.name for path in best[:2])
                    raise AnnotationError(f"{file.path.name}: expected one table or sidecar, found {names}; remove one")
                yield best[0]
            if folder == file.root:
                return
            folder = folder.parent

    def _in(self, folder: Path) -> list[tuple[Path, dict[str, str], str]]:
        if folder not in self._listed:
            found = self._listed[folder] = []
            for path in list_folder(folder):
                parsed = entities_of(path.stem) if path.suffix in _ENDINGS else None
                if parsed is not None and path.is_file():
                    found.append((path, *parsed))
        return self._listed[folder]


def discrete_labels(file: BidsFile, side_files: SideFiles) -> dict[str, int]:
    """Label to value (1 to 255) of a `_dseg` file, by value.

    Raises:
        AnnotationError: there is no table, two of equal rank, or a fault in it.
        StorageError: it cannot be read.
    """
    table = side_files.table(file)
    if table is not None:
        return _checked(_rows(table), table.name)
    declared = side_files.sidecar(file).get("LabelMap")
    if isinstance(declared, dict):
        return _checked(declared.items(), "LabelMap")
    raise AnnotationError(
        f"{file.path.name}: expected names of its values in {file.suffix}.tsv (columns index and name), found no such "
        "table; add it"
    )


def mask_label(file: BidsFile, side_files: SideFiles) -> str:
    """The label of a `_mask` file; AnnotationError when nothing tells it."""
    found = file.entities.get("label") or file.entities.get("desc") or side_files.sidecar(file).get("Type")
    if found is None:
        raise AnnotationError(f"{file.path.name}: expected label-<name> in its name, found none; rename the file")
    return checked_label(found, file.path.name)


def _read_sidecar(path: Path) -> dict[str, Any]:
    content = read_bounded(path, max_bytes=_MAX_BYTES)
    try:
        found = json.loads(content, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path.name}: expected JSON with every name once, found a fault in it") from error
    if not isinstance(found, dict):
        raise AnnotationError(f"{path.name}: expected a JSON object, found something else")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A value that is named twice would silently lose its first name."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _rows(table: Path) -> list[tuple[str, str]]:
    try:
        text = read_bounded(table, max_bytes=_MAX_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(text.splitlines(), dialect="excel-tab", strict=True)
        columns, rows = list(reader.fieldnames or ()), list(reader)
    except (ValueError, csv.Error) as error:
        raise AnnotationError(f"{table.name}: expected a table with tabs, found a fault in it; correct it") from error
    if not rows or columns.count("index") != 1 or columns.count("name") != 1:
        raise AnnotationError(f"{table.name}: expected the columns index and name once, found others; correct it")
    return [(row["index"], row["name"]) for row in rows]


def _checked(pairs: Iterable[tuple[Any, Any]], source: str) -> dict[str, int]:
    found: dict[int, str] = {}
    for value, name in pairs:
        number = str(value).strip()
        if not (number.isascii() and number.isdigit() and len(number) <= 3 and int(number) <= _MAX_VALUE):
            raise AnnotationError(
                f"{source}: expected values that are whole numbers from 0 to {_MAX_VALUE}, found others; number the "
                "labels anew"
            )
        if int(number) in found:
            raise AnnotationError(f"{source}: expected every value once, found {number} twice")
        found[int(number)] = checked_label(name, source)
    found.pop(0, None)
    named = {label_key(name) for name in found.values() if name != _NOTHING}
    if not found or len(named) != len(found):
        raise AnnotationError(f"{source}: expected at least one label, each with a name of its own")
    return {found[value]: value for value in sorted(found)}
