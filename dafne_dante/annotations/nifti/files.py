"""One study in NIfTI files, found by their names, and what the folder layouts have in common.

Terms
- A *label map* is one file whose value says which label a voxel has. A *mask* is one file for one label: every voxel
  that is not 0 belongs to it.

Invariants: two labels of a study differ by more than letter case; hidden files (`._x.nii.gz` of macOS archives among
them) do not exist for us.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dafne_dante.annotations.grid import ImageOnGrid
from dafne_dante.annotations.nifti.annotated import SIDECAR
from dafne_dante.annotations.nifti.image import read_image, read_label_values, read_mask
from dafne_dante.annotations.nifti.volume import ENDINGS, read_notes
from dafne_dante.annotations.study import EmptySlices, LabelledImage
from dafne_dante.errors import AnnotationError, GeometryMismatchError, StorageError, UnknownLabelError
from dafne_dante.types import AnnotatedSlices, Segmentation

__all__ = ["LabelMap", "Masks", "NiftiStudy", "checked_label", "list_folder", "nifti_files"]

_MAX_LABEL_LENGTH = 100
_SLICES = 2


@dataclass(frozen=True)
class LabelMap:
    """One file for all labels: `values[i]` (1 to 255) stands for the study's `labels[i]`."""

    path: Path
    values: tuple[int, ...]


@dataclass(frozen=True)
class Masks:
    """One file a label: `paths[i]` shows the study's `labels[i]`."""

    paths: tuple[Path, ...]


@dataclass(frozen=True)
class NiftiStudy:
    """What belongs together; a Study (see `annotations.study`).

    Attributes:
        name: what the files call it.
        images: one file a contrast, in the order of the channels.
        labels: names as the files have them.
        annotation: where the labels are drawn.
        empty_slices: datasets are labelled throughout; Dafne's exports are not.
        annotated: slices that were labelled, by number along the third axis of the first file, and how many there are
            along it; None where nobody says so.
        volumes: how many contrasts each image file holds along its fourth axis; more than 1 for a single file only.
        dataset: the base name of the dataset's folder that the study was found in; empty when it stands alone.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[str, ...]
    annotation: LabelMap | Masks
    empty_slices: EmptySlices = "background"
    annotated: tuple[tuple[int, ...], int] | None = None
    volumes: int = 1
    dataset: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Images, then where the labels are drawn, and what says which slices were labelled."""
        drawn = (self.annotation.path,) if isinstance(self.annotation, LabelMap) else self.annotation.paths
        return self.images + drawn + ((self.images[0].with_name(SIDECAR),) if self.annotated else ())

    def read(self, values: Mapping[str, int]) -> LabelledImage:
        """As `annotations.study.Study.read`.

        Raises:
            UnreadableImageError: a file that is not a sound NIfTI volume.
            GeometryMismatchError: a file that does not describe its image's grid.
            UnknownLabelError: a file holds a value that was not declared.
            AnnotationError: a mask on a slice that is said not to be labelled.
        """
        grid = read_image(self.images, volumes=self.volumes, slice_axis=None if self.annotated is None else _SLICES)
        annotated = self._annotated(grid)
        if isinstance(self.annotation, LabelMap):
            named = dict(zip(self.labels, self.annotation.values, strict=True))
            drawn, told = _translated(self.annotation.path, named, values, grid), read_notes(self.annotation.path)
            notes = _once(self.annotation.path.name, told, grid.notes)
        else:
            drawn, notes = _laid_over(dict(zip(self.labels, self.annotation.paths, strict=True)), values, grid)
        return LabelledImage(grid, drawn, annotated, grid.notes + notes)

    def _annotated(self, grid: ImageOnGrid) -> AnnotatedSlices | None:
        """(Z,) bool on the canonical grid, whichever way its slices run in the file."""
        if self.annotated is None:
            return None
        numbers, count = self.annotated
        if grid.original_shape[_SLICES] != count:
            raise GeometryMismatchError(
                f"{SIDECAR}: expected {count} slices along the third axis of {self.images[0].name}, "
                f"found {grid.original_shape[_SLICES]}; export the case again"
            )
        annotated = np.zeros(count, dtype=np.bool_)
        annotated[list(numbers)] = True
        return np.ascontiguousarray(annotated[:: grid.reorientation.flips[_SLICES]])


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


def _translated(path: Path, named: Mapping[str, int], values: Mapping[str, int], grid: ImageOnGrid) -> Segmentation:
    """A label map with its values replaced by ours; UnknownLabelError naming the file and an undeclared value."""
    stored = read_label_values(path, grid)
    declared = np.zeros(256, dtype=np.bool_)
    declared[[0, *named.values()]] = True
    undeclared = stored[~declared[stored]]
    if undeclared.size:
        allowed = ", ".join(map(str, (0, *named.values())))
        raise UnknownLabelError(
            f"{path.name}: expected the declared label values {allowed}, found {undeclared[0]}; "
            "declare it in dataset.json or correct the file"
        )
    translation = np.zeros(256, dtype=np.uint8)
    for name, value in named.items():
        translation[value] = values.get(name, 0)
    translated: Segmentation = translation[stored]
    return translated


def _laid_over(
    masks: Mapping[str, Path], values: Mapping[str, int], grid: ImageOnGrid
) -> tuple[Segmentation, tuple[str, ...]]:
    """The masks over each other, and what a person should know of them."""
    segmentation = np.zeros(grid.shape, dtype=np.uint8)
    notes: tuple[str, ...] = ()
    for name, path in masks.items():
        if name in values:
            mask, told = read_mask(path, grid)
            segmentation[mask] = values[name]
            notes += told + _once(path.name, read_notes(path), grid.notes + notes)
    return segmentation, notes


def _once(name: str, notes: Iterable[str], told: Iterable[str]) -> tuple[str, ...]:
    """The notes on a file that were not told of another one: a header is often copied to all that is drawn."""
    known = {note.partition(": ")[2] for note in told}
    return tuple(f"{name}: {note}" for note in notes if note not in known)
