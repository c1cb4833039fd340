"""What is drawn in Dafne's window -> a study that can be kept.

Facts, from reading Dafne 2.1.0a0: `medical_volume` (`volume` (X, Y, Z) and `affine` (4, 4)) is None before a study is
open; `roiManager` holds what is drawn by label and slice; asking `get_mask` for a pair that is not there creates it,
so `contains` is asked first. In a time series both are those of the frame that is shown. `classifications` names a
model for each slice, as "Model" or "Model, Variant", and "None" for no model.

Invariants
- Dafne's annotations are not changed by looking at them.
- Slices without any drawn voxel are not annotated; see `annotations.dafne.viewer`.
- The study's name is the same for every study, for Dafne's own names are those of files and patients.
"""

from collections.abc import Sequence
from typing import Protocol

from dafne_dante.annotations.dafne.viewer import ViewerStudy
from dafne_dante.types import Affine, Volume

__all__ = ["NO_MODEL", "DrawingWindow", "MedicalVolume", "RoiStore", "drawn_study", "model_type_of"]

NO_MODEL = "None"
_NAME = "the study in Dafne"


class MedicalVolume(Protocol):
    """An image as Dafne has it: `volume` (X, Y, Z), `affine` (4, 4) in RAS+."""

    @property
    def volume(self) -> Volume:
        """(X, Y, Z)."""

    @property
    def affine(self) -> Affine:
        """(4, 4), millimetres."""


class RoiStore(Protocol):
    """What is drawn, by label and slice."""

    def get_roi_names(self) -> list[str]:
        """The labels."""

    def contains(self, roi_name: str, image_number: int) -> bool:
        """Whether a slice has anything of a label, which may be empty."""

    def get_mask(self, roi_name: str, image_number: int) -> Volume:
        """(X, Y) of 0 and 1."""


class DrawingWindow(Protocol):
    """The part of Dafne's main window that is read."""

    medical_volume: MedicalVolume | None
    roiManager: RoiStore | None  # noqa: N815 (Dafne's name)
    classifications: Sequence[str]
    curImage: float  # noqa: N815 (Dafne's name)


def drawn_study(window: DrawingWindow) -> ViewerStudy | None:
    """A copy of the open image and of what is drawn on it; None when nothing is open or nothing is drawn.

    Raises:
        AnnotationError: labels that are none, or alike.
        GeometryMismatchError, UnknownLabelError, UnreadableImageError: as `ViewerStudy` tells.
    """
    image, rois = window.medical_volume, window.roiManager
    if image is None or rois is None:
        return None
    slices = range(image.volume.shape[2])
    found = {name: _masks(rois, name, slices) for name in rois.get_roi_names()}
    masks = {name: by_slice for name, by_slice in found.items() if by_slice}
    return ViewerStudy(_NAME, image.volume, image.affine, masks) if masks else None


def model_type_of(window: DrawingWindow) -> str:
    """The model that is chosen for the slice that is shown, without its variant; "" for none."""
    try:
        chosen = window.classifications[int(window.curImage)]
    except IndexError:
        return ""
    name = chosen.split(",")[0].strip()
    return "" if name == NO_MODEL else name


def _masks(rois: RoiStore, name: str, slices: range) -> dict[int, Volume]:
    """The slices on which anything is drawn for a label."""
    drawn = {index: rois.get_mask(name, index) for index in slices if rois.contains(name, index)}
    return {index: mask for index, mask in drawn.items() if mask.any()}
