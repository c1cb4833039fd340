"""The datasets that a BIDS folder consists of, and their NIfTI files; only dataset_description.json is opened.

Terms (BIDS 1.10, "Storage of derived datasets", "Study dataset")
- A *dataset* has `dataset_description.json` and `sub-<label>/[ses-<label>/]<datatype>/` below it. What somebody made
  from it is a *derivative*, a dataset of its own in `derivatives/<name>/`, or the whole folder; the raw dataset may
  then be inside it, in `rawbids/` or `sourcedata/`.
- *Lent* files are a raw dataset's to which a derivative that was named by itself belongs: the one it lies inside, or
  one beside it that its description links to. Only their images are used.

Invariants: links to folders are not followed; the links of a description are compared with the folders beside the
dataset and never opened; a dataset has a bounded number of files; what is not looked at is counted.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dafne_dante.annotations.nifti.bids_names import BidsFile, parsed_name
from dafne_dante.annotations.nifti.files import list_folder
from dafne_dante.annotations.nifti.volume import ENDINGS
from dafne_dante.durable import read_bounded
from dafne_dante.errors import AnnotationError, StorageError

__all__ = ["BidsListing", "bids_files", "is_bids_folder"]

_DESCRIPTION = "dataset_description.json"
_MAX_BYTES = 1 << 20
_MAX_FILES = 100_000
_DEPTH = 2  # session and data type
_NESTED = 2  # derivatives of derivatives
_SOURCES = ("rawbids", "sourcedata")


@dataclass
class BidsListing:
    """What a folder came to.

    Attributes:
        files: NIfTI files with BIDS names, by dataset and place.
        lent: the same of a raw dataset that is not in the folder.
        strange: NIfTI files whose names or places are none of BIDS.
        absent: links to files that are not there, as git-annex leaves them.
        links: links to folders.
        unknown: folders of derivatives without subjects.
    """

    files: list[BidsFile] = field(default_factory=list)
    lent: list[BidsFile] = field(default_factory=list)
    strange: int = 0
    absent: int = 0
    links: int = 0
    unknown: int = 0


def is_bids_folder(folder: Path) -> bool:
    """Whether the folder says that it is a BIDS dataset, raw or derivative."""
    return _described(folder) is not None


def bids_files(folder: Path) -> BidsListing:
    """The NIfTI files of the dataset, of the raw datasets in it and of its derivatives.

    Raises:
        AnnotationError: more files than a search looks at.
        StorageError: a folder cannot be listed.
    """
    listing = BidsListing()
    is_raw = _is_raw(folder)
    _list_dataset(folder, listing, is_raw=is_raw, nested=_NESTED)
    if is_raw:
        return listing
    for raw in _raw_inside(folder):
        _list_dataset(raw, listing, is_raw=True, nested=_NESTED)
    if not any(file.is_raw for file in listing.files):
        for raw in _raw_around(folder):
            lent = BidsListing()
            _list_subjects(raw, lent, is_raw=True)
            listing.lent += lent.files
    return listing


def _list_dataset(folder: Path, listing: BidsListing, *, is_raw: bool, nested: int) -> None:
    """Add a dataset with its derivatives; a derivative that has neither subjects nor derivatives counts as unknown."""
    has_subjects = _list_subjects(folder, listing, is_raw=is_raw)
    derivatives = folder / "derivatives"
    if nested and derivatives.is_dir() and not derivatives.is_symlink():
        _list_subjects(derivatives, listing, is_raw=False)  # one that has no folder of its own, which is common
        for one in _folders(derivatives):
            if not one.name.startswith("sub-"):
                _list_dataset(one, listing, is_raw=False, nested=nested - 1)
    elif not has_subjects and not is_raw:
        listing.unknown += 1


def _list_subjects(root: Path, listing: BidsListing, *, is_raw: bool) -> bool:
    """Add the files of a dataset's subjects; whether there is any subject."""
    listing.links += sum(entry.is_symlink() and entry.is_dir() for entry in list_folder(root))
    subjects = [one for one in _folders(root) if one.name.startswith("sub-")]
    for path in (path for subject in subjects for path in _files_in(subject, listing, _DEPTH)):
        parsed = parsed_name(path.name)
        if parsed is None:
            listing.strange += 1
        else:
            listing.files.append(BidsFile(path, root, is_raw, *parsed))
        if len(listing.files) + listing.strange > _MAX_FILES:
            raise AnnotationError(f"expected at most {_MAX_FILES} files, found more; name parts of the dataset")
    return bool(subjects)


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in list_folder(folder) if entry.is_dir() and not entry.is_symlink()]


def _files_in(folder: Path, listing: BidsListing, depth: int) -> Iterator[Path]:
    for entry in list_folder(folder):
        if entry.is_dir():
            if entry.is_symlink():
                listing.links += 1
            elif depth:
                yield from _files_in(entry, listing, depth - 1)
            else:
                listing.strange += any(_is_nifti(inner) for inner in list_folder(entry))
        elif _is_nifti(entry):
            if entry.is_file():
                yield entry
            else:
                listing.absent += 1


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def _raw_inside(folder: Path) -> Iterator[Path]:
    """Raw datasets that a derivative or a study carries with it."""
    for name in _SOURCES:
        source = folder / name
        if source.is_dir() and not source.is_symlink():
            for one in (source, *_folders(source)):
                if is_bids_folder(one) and _is_raw(one):
                    yield one


def _raw_around(folder: Path) -> Iterator[Path]:
    """The raw dataset that a derivative lies inside, else those beside it that its description links to."""
    above = folder.parent
    if above.name == "derivatives":
        if is_bids_folder(above.parent) and _is_raw(above.parent):
            yield above.parent
        return
    linked = set(_links(_described(folder) or {}))
    if not linked:
        return
    for one in _folders(above):
        if f"../{one.name}" in linked and is_bids_folder(one) and _is_raw(one):
            yield one


def _links(described: dict[str, Any]) -> Iterator[str]:
    """Where a description says that its sources are (`DatasetLinks`, `SourceDatasets`), without a closing slash."""
    links, sources = described.get("DatasetLinks"), described.get("SourceDatasets")
    found = list(links.values()) if isinstance(links, dict) else []
    found += [one.get("URL") for one in sources if isinstance(one, dict)] if isinstance(sources, list) else []
    for text in found:
        if isinstance(text, str):
            yield text.rstrip("/")


def _is_raw(folder: Path) -> bool:
    """Whether the dataset says that it is raw; before BIDS 1.4 none said so, then its place tells."""
    return (_described(folder) or {}).get("DatasetType", "raw") == "raw" and folder.parent.name != "derivatives"


def _described(folder: Path) -> dict[str, Any] | None:
    path = folder / _DESCRIPTION
    if not path.is_file():
        return None
    try:
        found = json.loads(read_bounded(path, max_bytes=_MAX_BYTES))
    except (ValueError, RecursionError, StorageError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("BIDSVersion"), str) else None
