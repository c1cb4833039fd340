"""DICOM files of a site -> labelled studies: each image series with the label objects that belong to it.

Terms: an *image* is a series, or a part of one, that makes a volume. What label objects are: see `referenced`; which
image they belong to, and which of several versions counts: see `pairing`.

Invariants
- An image is one study, whoever drew on it: the labels of all its objects together. Where two of them overlap, the
  one that was drawn later lies over the other.
- Nothing is dropped in silence: an image without labels, labels without an image and every other file are left, with
  the reason.
- Names of studies are those of files or folders, or a number; nothing from inside a file but the names of labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dafne_dante.annotations.dicom.contours import STRUCTURE_SET_CLASS, describe_structure_set
from dafne_dante.annotations.dicom.files import DicomFile, read_headers
from dafne_dante.annotations.dicom.image import geometry_of, read_series
from dafne_dante.annotations.dicom.mask_export import SIDE_FILES, split_mask_exports
from dafne_dante.annotations.dicom.pairing import Contribution, choose_image, choose_versions
from dafne_dante.annotations.dicom.planes import Lattice
from dafne_dante.annotations.dicom.referenced import LabelObject
from dafne_dante.annotations.dicom.segmentation import SEGMENTATION_CLASSES, describe_segmentation
from dafne_dante.annotations.dicom.series import DicomSeries, group_series
from dafne_dante.annotations.grid import put_on_grid
from dafne_dante.annotations.study import EmptySlices, Found, LabelledImage, Left
from dafne_dante.errors import AnnotationError, DanteError

__all__ = ["DicomStudy", "find_dicom_studies"]

_NO_LABELS = "an image without labels: expected a segmentation, a structure set or masks of it, found none"
_NOT_CHOSEN = "an image of a series that was not chosen"


@dataclass(frozen=True)
class DicomStudy:
    """One image with everything that counts of what was drawn on it; a Study (see `annotations.study`).

    Attributes:
        name: the base name of its file or folder, or its number among the images.
        image: its files.
        drawn: what each label object gives, the earliest first.
    """

    name: str
    image: DicomSeries
    drawn: tuple[Contribution, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """As `Study.labels`."""
        return tuple(label for part in self.drawn for label in part.labels)

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of the image, then those of the label objects."""
        return (*self.image.files, *(path for part in self.drawn for path in part.source.files))

    @property
    def empty_slices(self) -> EmptySlices:
        """Unknown as soon as one of the objects leaves it open: then the whole image may be annotated in part."""
        return "unknown" if any(part.source.empty_slices == "unknown" for part in self.drawn) else "background"

    def read(self, values: Mapping[str, int]) -> LabelledImage:
        """As `Study.read`.

        Raises:
            UnreadableImageError: the image or a label object is damaged.
            GeometryMismatchError: a label object does not lie on the image's grid.
            UnknownLabelError: a label object has pixels that stand for no label.
            AnnotationError: a label object has changed since it was found.
            StorageError: a file cannot be read.
        """
        stored = read_series(self.image)
        lattice = Lattice(stored.affine, stored.volume.shape)
        grid = put_on_grid(self.name, stored.volume, stored.affine, slice_axis=2)
        ranks = {label: rank for rank, label in enumerate(self.labels, start=1) if label in values}
        drawn = np.zeros(lattice.shape, dtype=np.uint16, order="F")  # one slice after the other, as they are drawn
        notes: list[str] = list(stored.notes)
        for part in self.drawn:
            own = {label: ranks[label] for label in part.labels if label in ranks}
            notes += part.source.draw(own, lattice, drawn) if own else ()
        values_of_ranks = np.zeros(len(self.labels) + 1, dtype=np.uint8)
        for label, rank in ranks.items():
            values_of_ranks[rank] = values[label]
        segmentation = np.ascontiguousarray(grid.reorientation.apply(values_of_ranks[drawn]))
        return LabelledImage(grid, segmentation, notes=tuple(notes))


def find_dicom_studies(paths: Sequence[Path], *, series: str | None = None) -> Found:
    """The labelled studies among DICOM files; headers are read, and pixels hardly ever.

    Args:
        paths: files.
        series: the SeriesInstanceUID, or the SeriesDescription without regard to case, of the only images that may
            be taken. Labels drawn on another image are then laid on the chosen one if it has the same grid and frame
            of reference.
    """
    beside = [path for path in paths if path.name in SIDE_FILES]
    files, left = read_headers([path for path in paths if path not in beside])
    exports, others, bad_exports = split_mask_exports(_images_in(files))
    images, bad_images = group_series(others)
    described, bad_objects = _label_objects(files)
    chosen = [image for image in images if _is_chosen(image, series)]
    drawn, unpaired = _paired([*described, *exports], chosen)
    names = _names(images)
    left = [*left, *_without_slices(beside, files), *bad_exports, *bad_images, *bad_objects, *unpaired]
    studies = []
    for number, image in enumerate(images):
        parts, superseded = choose_versions(drawn.get(id(image), []))
        left += superseded
        if parts:
            studies.append(DicomStudy(names[number], image, tuple(parts)))
        else:
            left.append(Left(names[number], _NO_LABELS if image in chosen else _NOT_CHOSEN))
    return Found(tuple(studies), tuple(left))


def _without_slices(beside: Sequence[Path], files: Sequence[DicomFile]) -> list[Left]:
    """Legends of exports that are not here."""
    folders = {file.path.parent for file in files}
    return [
        Left(path.name, "expected the slices of an export beside it, found none")
        for path in beside
        if path.parent not in folders
    ]


def _images_in(files: Sequence[DicomFile]) -> list[DicomFile]:
    """All that are no label objects; which of them are images is for `group_series` to tell."""
    return [file for file in files if file.sop_class_uid not in (*SEGMENTATION_CLASSES, STRUCTURE_SET_CLASS)]


def _label_objects(files: Sequence[DicomFile]) -> tuple[list[LabelObject], list[Left]]:
    found: list[LabelObject] = []
    left: list[Left] = []
    for file in files:
        try:
            if file.sop_class_uid in SEGMENTATION_CLASSES:
                found.append(describe_segmentation(file.path, file.header))
            elif file.sop_class_uid == STRUCTURE_SET_CLASS:
                found.append(describe_structure_set(file.path, file.header))
        except AnnotationError as error:
            left.append(Left(file.path.name, str(error)))
    return found, left


def _is_chosen(image: DicomSeries, series: str | None) -> bool:
    wanted = None if series is None else series.strip()
    return wanted is None or wanted == image.uid or wanted.casefold() == image.description.strip().casefold()


def _paired(
    objects: Sequence[LabelObject], images: Sequence[DicomSeries]
) -> tuple[dict[int, list[LabelObject]], list[Left]]:
    """The objects that belong to each image, by the image's identity."""
    lattice_of = _remembered_lattices()
    drawn: dict[int, list[LabelObject]] = {}
    left: list[Left] = []
    for one in objects:
        try:
            drawn.setdefault(id(choose_image(one, images, lattice_of)), []).append(one)
        except AnnotationError as error:
            left.append(Left(one.name, str(error)))
    return drawn, left


def _remembered_lattices() -> Callable[[DicomSeries], Lattice]:
    """Geometry of an image without its pixels, read once."""
    known: dict[int, Lattice | DanteError] = {}

    def lattice_of(image: DicomSeries) -> Lattice:
        if id(image) not in known:
            try:
                geometry = geometry_of(image)
                known[id(image)] = Lattice(geometry.affine, geometry.shape)
            except DanteError as error:
                known[id(image)] = error
        found = known[id(image)]
        if isinstance(found, DanteError):
            raise found
        return found

    return lattice_of


def _names(images: Sequence[DicomSeries]) -> list[str]:
    """A single file's base name; the folder's, where one image is alone in it; else its number."""
    folders = [{path.parent for path in image.files} for image in images]
    names = []
    for number, image in enumerate(images):
        own = next(iter(folders[number]))
        alone = len(folders[number]) == 1 and sum(own in others for others in folders) == 1
        plain = image.files[0].name if len(image.files) == 1 else own.name if alone else ""
        names.append(plain or f"series {number + 1} of {len(images)}")
    return [
        name if names.count(name) == 1 else f"series {number} of {len(names)}" for number, name in enumerate(names, 1)
    ]
