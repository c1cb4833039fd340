"""The files of one study, before any of them is opened, and what both folder layouts have in common.

Terms
- A *study* is one image (one file a contrast) and what somebody drew on it.
- A *label map* is one file whose value says which label a voxel has. A *mask* is one file for one label: every voxel
  that is not 0 belongs to it.
- The *name* of a study is taken from its files. It may be a patient's: it appears in messages to the person who owns
  the files, as file names do, and goes no further.

Invariants: labels of a study are in one order for its whole folder; two labels of a folder differ by more than
letter case; hidden files (`._x.nii.gz` of macOS archives among them) do not exist for us.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.annotations.nifti import ENDINGS
from dafne_dante.errors import AnnotationError, StorageError

__all__ = ["LabelMap", "Masks", "StudyFiles", "checked_label", "label_key", "list_folder", "nifti_files"]

_MAX_LABEL_LENGTH = 100


@dataclass(frozen=True)
class LabelMap:
    """One file for all labels: `values[i]` (1 to 255) stands for the study's `labels[i]`."""

    path: Path
    values: tuple[int, ...]


@dataclass(frozen=True)
class Masks:
    """One file a label: `paths[i]` shows the study's `labels[i]`; where masks overlap the later one counts."""

    paths: tuple[Path, ...]


@dataclass(frozen=True)
class StudyFiles:
    """What belongs together; nothing has been opened yet.

    Attributes:
        name: what the files call it, for messages.
        images: one file a contrast, in the order of the channels.
        labels: names as the folder has them.
        annotation: where the labels are drawn.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[str, ...]
    annotation: LabelMap | Masks


def label_key(name: str) -> str:
    """What two spellings of one label have in common: no outer blanks, no letter case, one form of accents."""
    return unicodedata.normalize("NFC", name.strip()).casefold()


def checked_label(name: object, source: str) -> str:
    """A label's name from an untrusted source, trimmed; AnnotationError when it is none. `source` is a base name."""
    if not isinstance(name, str) or not name.strip() or len(name) > _MAX_LABEL_LENGTH or not name.isprintable():
        raise AnnotationError(f"{source}: expected label names of 1 to {_MAX_LABEL_LENGTH} printable characters")
    return unicodedata.normalize("NFC", name.strip())


def list_folder(folder: Path) -> list[Path]:
    """What is in the folder, by name, without hidden entries; StorageError when it cannot be listed."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise StorageError(
            f"cannot list the folder {folder.name}: {error.strerror or type(error).__name__}; "
            "choose another folder or ask for permission"
        ) from error


def nifti_files(entries: Iterable[Path]) -> dict[str, Path]:
    """The NIfTI files among the entries by their names without the ending; AnnotationError when two share one."""
    found: dict[str, Path] = {}
    for path in entries:
        ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")
        if not ending or not path.is_file():
            continue
        stem = path.name[: -len(ending)]
        if stem in found:
            raise AnnotationError(f"expected one file for {stem}, found {found[stem].name} and {path.name}; remove one")
        found[stem] = path
    return found
