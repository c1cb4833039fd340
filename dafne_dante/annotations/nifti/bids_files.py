"""The NIfTI files of a BIDS dataset by what their names say; nothing is opened but dataset_description.json.

Terms (BIDS 1.10, "Filename structure")
- A name is `<key>-<value>_..._<suffix>.nii.gz`; the pairs are its *entities*, the suffix says what kind of data it is.
- A *dataset* has `dataset_description.json` and `sub-<label>/[ses-<label>/]<datatype>/` below it. What somebody made
  from it is a *derivative*, a dataset of its own in `derivatives/<name>/`, or the whole folder.

Invariants: names are untrusted, and only compared; links to folders are not followed; a dataset has a bounded number
of files.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.annotations.nifti.files import list_folder
from dafne_dante.annotations.nifti.volume import ENDINGS
from dafne_dante.durable import read_bounded
from dafne_dante.errors import AnnotationError, StorageError

__all__ = ["BidsFile", "bids_files", "entities_of", "is_bids_folder"]

_DESCRIPTION = "dataset_description.json"
_MAX_BYTES = 1 << 20
_MAX_FILES = 100_000
_DEPTH = 3  # ses, datatype, and the folder of an image in several files


@dataclass(frozen=True)
class BidsFile:
    """One NIfTI file.

    Attributes:
        path: where it is.
        root: the folder of its dataset.
        is_raw: whether that dataset is no derivative.
        entities: key to value.
        suffix: `T1w`, `dseg`, `mask`, ...
    """

    path: Path
    root: Path
    is_raw: bool
    entities: Mapping[str, str]
    suffix: str

    @property
    def stem(self) -> str:
        """The name without its ending."""
        ending = next(ending for ending in ENDINGS if self.path.name.endswith(ending))
        return self.path.name[: -len(ending)]

    @property
    def place(self) -> str:
        """Its path below its dataset, with slashes."""
        return self.path.relative_to(self.root).as_posix()


def is_bids_folder(folder: Path) -> bool:
    """Whether the folder says that it is a BIDS dataset, raw or derivative."""
    return _described(folder) is not None


def bids_files(folder: Path) -> list[BidsFile]:
    """The NIfTI files of the dataset and of its derivatives, by dataset and place.

    Raises:
        AnnotationError: more files than a search looks at.
        StorageError: a folder cannot be listed.
    """
    described = _described(folder) or {}
    is_raw = described.get("DatasetType", "raw") == "raw"
    found = list(_below(folder, folder, is_raw=is_raw))
    derivatives = folder / "derivatives"
    if derivatives.is_dir() and not derivatives.is_symlink():
        for one in list_folder(derivatives):
            if one.is_dir() and not one.is_symlink():
                found += _below(one, one, is_raw=False)
    if len(found) > _MAX_FILES:
        raise AnnotationError(f"expected at most {_MAX_FILES} files in a dataset, found more; name parts of it")
    return found


def entities_of(stem: str) -> tuple[dict[str, str], str] | None:
    """Entities and suffix of a name without its ending; None when it is no BIDS name."""
    *pairs, suffix = stem.split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        key, dash, value = pair.partition("-")
        if not dash or not key or not value or key in entities:
            return None
        entities[key] = value
    return (entities, suffix) if suffix and "-" not in suffix else None


def _below(folder: Path, root: Path, *, is_raw: bool) -> Iterator[BidsFile]:
    for subject in list_folder(folder):
        if subject.name.startswith("sub-") and subject.is_dir() and not subject.is_symlink():
            for path in _files_in(subject, _DEPTH):
                ending = next(ending for ending in ENDINGS if path.name.endswith(ending))
                parsed = entities_of(path.name[: -len(ending)])
                if parsed is not None and "sub" in parsed[0]:
                    yield BidsFile(path, root, is_raw, *parsed)


def _files_in(folder: Path, depth: int) -> Iterator[Path]:
    for entry in list_folder(folder):
        if entry.is_dir() and not entry.is_symlink() and depth:
            yield from _files_in(entry, depth - 1)
        elif entry.name.endswith(ENDINGS) and entry.is_file():
            yield entry


def _described(folder: Path) -> dict[str, object] | None:
    path = folder / _DESCRIPTION
    if not path.is_file():
        return None
    try:
        found = json.loads(read_bounded(path, max_bytes=_MAX_BYTES))
    except (ValueError, RecursionError, StorageError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("BIDSVersion"), str) else None
