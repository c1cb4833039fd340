"""One export of Dafne's with its image, and how it is read; what is known of such files: see `exports`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dafne_dante.annotations.geometry import Shape, orientation_between
from dafne_dante.annotations.grid import ImageOnGrid
from dafne_dante.annotations.nifti.files import LabelMap, Masks
from dafne_dante.annotations.nifti.image import read_image, read_label_values, read_mask
from dafne_dante.annotations.nifti.volume import read_geometry
from dafne_dante.annotations.study import EmptySlices, LabelledImage
from dafne_dante.errors import UnknownLabelError
from dafne_dante.types import Segmentation

__all__ = ["ExportStudy"]


@dataclass(frozen=True)
class ExportStudy:
    """An export with its image; a Study (see `annotations.study`).

    Attributes:
        name: what messages call it.
        image: the image's file.
        labels: by name, or in the order of the legend.
        annotation: where they are drawn.
        in_slices: whether the third axis of those files runs through the slices that somebody saw.
    """

    name: str
    image: Path
    labels: tuple[str, ...]
    annotation: LabelMap | Masks
    in_slices: bool = True
    empty_slices: EmptySlices = "unknown"

    @property
    def files(self) -> tuple[Path, ...]:
        """The image, then where the labels are drawn."""
        drawn = (self.annotation.path,) if isinstance(self.annotation, LabelMap) else self.annotation.paths
        return (self.image, *drawn)

    def read(self, values: Mapping[str, int]) -> LabelledImage:
        """As `annotations.study.Study.read`.

        Raises:
            UnreadableImageError, GeometryMismatchError: as for any NIfTI file.
            UnknownLabelError: a mask has several values, or a value is none of the legend's.
        """
        shape, drawn_affine = read_geometry(self.files[1])
        slice_axis = None
        if self.in_slices:
            slice_axis = orientation_between(drawn_affine, shape, read_geometry(self.image)[1]).axes[2]
        grid = read_image([self.image], slice_axis=slice_axis)
        told: tuple[str, ...] = grid.notes
        if isinstance(self.annotation, LabelMap):
            numbers = dict(zip(self.labels, self.annotation.values, strict=True))
            segmentation = _translated(self.annotation.path, numbers, values, grid)
        else:
            segmentation = np.zeros(grid.shape, dtype=np.uint8)
            for label, path in zip(self.labels, self.annotation.paths, strict=True):
                if label in values:
                    mask, notes = read_mask(path, grid)
                    segmentation[mask] = values[label]
                    told += notes
        return LabelledImage(grid, segmentation, None, (*told, *self._notes(shape)))

    def _notes(self, shape: Shape) -> Iterator[str]:
        if isinstance(self.annotation, LabelMap):
            if len(self.labels) > 2:
                yield "where labels overlap, a compact export does not tell which they are"
            if shape[0] in shape[1:]:
                yield "Dafne turns compact exports made with a 3D model; look whether labels and image fit"
        if not self.in_slices:
            yield "the export does not tell which way its slices ran"


def _translated(path: Path, numbers: Mapping[str, int], values: Mapping[str, int], grid: ImageOnGrid) -> Segmentation:
    """(X, Y, Z) uint8: the numbers of a compact export replaced by ours; UnknownLabelError for any other number."""
    stored = read_label_values(path, grid)
    known = np.zeros(256, dtype=np.bool_)
    translation = np.zeros(256, dtype=np.uint8)
    known[0] = True
    for label, number in numbers.items():
        known[number] = True
        translation[number] = values.get(label, 0)
    if not known[stored].all():
        raise UnknownLabelError(
            f"{path.name}: expected the numbers of its legend, found {stored[~known[stored]][0]}: labels overlap; "
            "export one file a label"
        )
    translated: Segmentation = translation[stored]
    return translated
