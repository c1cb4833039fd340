"""CHAOS, abdominal MRI (doi 10.1016/j.media.2020.101950, 10.5281/zenodo.3431873): DICOM images, masks as PNG files.

    [Train_Sets/]MR/<number>/T1DUAL/DICOM_anon/InPhase/*.dcm  OutPhase/*.dcm    T1DUAL/Ground/*.png
    [Train_Sets/]MR/<number>/T2SPIR/DICOM_anon/*.dcm                            T2SPIR/Ground/*.png

Values of a mask, with the ranges that its publisher gives them: liver 63 (55-70), right kidney 126 (110-135), left
kidney 189 (175-200), spleen 252 (240-255); anything else is background. The masks of T1DUAL are of both phases.

Invariants: the n-th mask by name is of the n-th image by name, and where its slice lies is told by DICOM alone; so many
masks as images, or the study is refused. UIDs of series are not looked at: anonymisation gave each file another.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image as Picture
from PIL import UnidentifiedImageError

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.dicom.files import read_headers
from dafne_dante.annotations.dicom.image import read_series
from dafne_dante.annotations.dicom.series import DicomSeries, group_series
from dafne_dante.annotations.dicom.stack import stack_slices
from dafne_dante.annotations.grid import put_on_grid
from dafne_dante.benchmark.public_nifti import PublicStudy
from dafne_dante.errors import AnnotationError, UnreadableImageError
from dafne_dante.types import Segmentation

__all__ = ["CHAOS_LABELS", "ChaosContrast", "chaos_studies"]

ChaosContrast = Literal["t1-in", "t1-out", "t2"]
CHAOS_LABELS = ("liver", "right kidney", "left kidney", "spleen")
_RANGES = ((55, 70), (110, 135), (175, 200), (240, 255))
_PLACES: dict[ChaosContrast, tuple[str, str]] = {
    "t1-in": ("T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground"),
    "t1-out": ("T1DUAL/DICOM_anon/OutPhase", "T1DUAL/Ground"),
    "t2": ("T2SPIR/DICOM_anon", "T2SPIR/Ground"),
}
_MOST_SLICES = 2000


def chaos_studies(folder: Path, *, contrast: ChaosContrast) -> Iterator[PublicStudy]:
    """The studies of one contrast, by number."""
    images, masks = _PLACES[contrast]
    for root in (folder, folder / "MR", folder / "Train_Sets" / "MR"):
        for place in sorted(root.glob("[0-9]*"), key=lambda path: (len(path.name), path.name)):
            if (place / images).is_dir() and (place / masks).is_dir():
                yield PublicStudy(f"chaos {place.name}", _reader(place / images, place / masks))


def _reader(images: Path, masks: Path) -> Callable[[str], Case]:
    def read(case_id: str) -> Case:
        series = _series(sorted(images.glob("*.dcm")))
        slices = stack_slices(series.slices).slices
        by_name = sorted(one.file.path for one in slices)
        drawn = sorted(masks.glob("*.png"))
        if len(drawn) != len(by_name):
            raise AnnotationError(
                f"expected a mask for each of {len(by_name)} images, found {len(drawn)}; unpack the set again"
            )
        mask_of = dict(zip(by_name, drawn, strict=True))
        stored = read_series(series)
        grid = put_on_grid("chaos", stored.volume, stored.affine, slice_axis=2)
        shape = stored.volume.shape[:2]
        planes = [_labels_in(mask_of[one.file.path], shape) for one in slices]
        segmentation = np.ascontiguousarray(grid.reorientation.apply(np.stack(planes, axis=2)))
        annotated = np.ones(segmentation.shape[2], dtype=np.bool_)
        return Case(case_id, grid.image, segmentation, annotated, grid.affine, CHAOS_LABELS)

    return read


def _series(paths: Sequence[Path]) -> DicomSeries:
    if len(paths) > _MOST_SLICES:
        raise AnnotationError(f"expected at most {_MOST_SLICES} images of a study, found {len(paths)}")
    files, _ = read_headers(paths)
    found, _ = group_series([replace(file, series_uid="one") for file in files])
    if len(found) != 1 or len(found[0].slices) != len(paths):
        raise AnnotationError(
            f"expected {len(paths)} images that are one volume, found {len(found)} volumes; unpack the set again"
        )
    return found[0]


def _labels_in(path: Path, shape: tuple[int, ...]) -> Segmentation:
    """A mask (columns, rows) uint8, label i as i."""
    try:
        with Picture.open(path, formats=("PNG",)) as picture:
            if picture.size != shape:
                raise AnnotationError(f"{path.name}: expected {shape} pixels as its image, found {picture.size}")
            values = np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise UnreadableImageError(f"{path.name}: expected a mask as PNG, found something else") from error
    found = np.zeros(values.shape, dtype=np.uint8)
    for label, (low, high) in enumerate(_RANGES, start=1):
        found[(values >= low) & (values <= high)] = label
    return found.T
