"""A Case: one labelled study as everything else in dafne-dante sees it.

Terms
- image (C, X, Y, Z) float32; X, Y, Z are voxel axes, Z runs through the slices.
- segmentation (X, Y, Z) uint8; 0 is background, i stands for labels[i - 1].
- annotated (Z,) bool; a slice that nobody labelled is *unknown*, not background.
- affine (4, 4) maps a voxel index to millimetres in RAS+.
- case_id is a pseudonym: a keyed hash of the source, never a UID, a name or a path.

Invariants (checked on construction): shapes agree, values of the segmentation have a label, image and affine are
finite, labels are unique and not empty.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dafne_dante.errors import AnnotationError, GeometryMismatchError, UnknownLabelError
from dafne_dante.types import Affine, AnnotatedSlices, Image, Segmentation, SpacingMm

__all__ = ["Case"]


@dataclass(frozen=True, eq=False)
class Case:
    """One labelled study; shapes and meanings in the module docstring.

    Raises:
        AnnotationError: the image is not finite, an axis is missing, or the labels are not a proper list.
        GeometryMismatchError: shapes disagree.
        UnknownLabelError: the segmentation holds a value that no label stands for.
    """

    case_id: str
    image: Image
    segmentation: Segmentation
    annotated: AnnotatedSlices
    affine: Affine
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.image.ndim != 4 or self.image.dtype != np.float32:
            raise AnnotationError(
                f"expected an image (C, X, Y, Z) float32, found {self.image.ndim} axes of {self.image.dtype}"
            )
        grid = self.image.shape[1:]
        if self.segmentation.shape != grid or self.segmentation.dtype != np.uint8:
            raise GeometryMismatchError(
                f"expected a segmentation {grid} uint8, found {self.segmentation.shape} {self.segmentation.dtype}"
            )
        if self.annotated.shape != grid[2:] or self.annotated.dtype != np.bool_:
            raise GeometryMismatchError(
                f"expected one bool for each of {grid[2]} slices, found {self.annotated.shape} {self.annotated.dtype}"
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise GeometryMismatchError("expected a finite affine (4, 4)")
        if not self.labels or len(set(self.labels)) != len(self.labels) or not all(self.labels):
            raise AnnotationError("expected at least one label, each with a name of its own")
        if not np.isfinite(self.image).all():
            raise AnnotationError("expected finite intensities, found NaN or infinity; export the image again")
        highest = int(self.segmentation.max(initial=0))
        if highest > len(self.labels):
            raise UnknownLabelError(f"expected label values 0 to {len(self.labels)}, found {highest}")

    @cached_property
    def spacing_mm(self) -> SpacingMm:
        """Millimetres per voxel along X, Y, Z: the lengths of the affine's columns."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y, Z."""
        return self.segmentation.shape[0], self.segmentation.shape[1], self.segmentation.shape[2]
