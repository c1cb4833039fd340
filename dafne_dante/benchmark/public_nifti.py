"""Public sets that are published as NIfTI: AMOS22, WMH 2017, MSLesSeg.

Layouts, as their publishers and the programs of others that read them describe them:

    AMOS22 (arXiv 2206.08023, doi 10.5281/zenodo.7155725)
      imagesTr/amos_0001.nii.gz  labelsTr/amos_0001.nii.gz, and the same with Va; numbers up to 500 are CT, above MRI
    WMH 2017 (wmh.isi.uu.nl, doi 10.1109/TMI.2019.2905770)
      [training/]Utrecht|Singapore|Amsterdam/[GE3T/]<number>/wmh.nii.gz  pre/FLAIR.nii.gz  pre/T1.nii.gz
    MSLesSeg (doi 10.6084/m9.figshare.27919209)
      <part>/P1/T1/P1_T1_FLAIR.nii.gz  P1_T1_T1.nii.gz  P1_T1_T2.nii.gz  P1_T1_MASK.nii.gz
      <part>/P54/P54_FLAIR.nii.gz ...  where there is one time only

Invariants: labels are those of the publication, in its order; all times of a patient are one subject; every slice
counts as labelled. WMH's value 2, other pathology, which the challenge leaves out of its evaluation, is background
here: a case knows slices that nobody labelled, not voxels.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.nifti.image import read_image, read_label_values
from dafne_dante.errors import UnknownLabelError

__all__ = [
    "AMOS_LABELS",
    "LESION_LABELS",
    "MSLESSEG_CONTRASTS",
    "WMH_CONTRASTS",
    "PublicStudy",
    "amos_studies",
    "mslesseg_studies",
    "wmh_studies",
]

AMOS_LABELS = (
    "spleen", "right kidney", "left kidney", "gall bladder", "oesophagus", "liver", "stomach", "aorta", "postcava",
    "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate or uterus",
)  # fmt: skip
LESION_LABELS = ("lesion",)
WMH_CONTRASTS = ("FLAIR", "T1")
MSLESSEG_CONTRASTS = ("FLAIR", "T1", "T2")
_LAST_CT = 500
_AMOS = re.compile(r"amos_(\d{4})\.nii\.gz")
_MSLESSEG = re.compile(r"(P\d+)(?:_T\d+)?_MASK\.nii\.gz")
_WMH_SITES = ("Utrecht", "Singapore", "Amsterdam", "GE3T")


@dataclass(frozen=True)
class PublicStudy:
    """A study that has not been read: whom it shows, and what reads it under a case id."""

    subject: str
    read: Callable[[str], Case]


def amos_studies(folder: Path, *, mri: bool) -> Iterator[PublicStudy]:
    """The MRI or the CT of AMOS22, by number."""
    for part in ("Tr", "Va"):
        for labels in sorted((folder / f"labels{part}").glob("amos_*.nii.gz")):
            found = _AMOS.fullmatch(labels.name)
            image = folder / f"images{part}" / labels.name
            if found and (int(found.group(1)) > _LAST_CT) == mri and image.is_file():
                yield PublicStudy(f"amos {found.group(1)}", _reader((image,), labels, AMOS_LABELS))


def wmh_studies(
    folder: Path, *, site: str = "", contrasts: Sequence[str] = WMH_CONTRASTS
) -> Iterator[PublicStudy]:  # fmt: skip
    """WMH 2017 with these contrasts, of WMH_CONTRASTS, of one scanner or of all."""
    for depth in range(1, 5):
        for labels in sorted(folder.glob("*/" * depth + "wmh.nii.gz")):
            place = labels.parent
            names = place.relative_to(folder).parts
            images = tuple(place / "pre" / f"{contrast}.nii.gz" for contrast in contrasts)
            scanner = next((name for name in reversed(names) if name in _WMH_SITES), "")
            if (not site or scanner == site) and all(image.is_file() for image in images):
                subject = " ".join(("wmh", scanner, place.name))
                yield PublicStudy(subject, _reader(images, labels, LESION_LABELS, background=(2,)))


def mslesseg_studies(folder: Path, *, contrasts: Sequence[str] = MSLESSEG_CONTRASTS) -> Iterator[PublicStudy]:
    """MSLesSeg with these contrasts, of MSLESSEG_CONTRASTS; all times of all patients."""
    for depth in range(1, 5):
        for labels in sorted(folder.glob("*/" * depth + "*_MASK.nii.gz")):
            found = _MSLESSEG.fullmatch(labels.name)
            stem = labels.name.removesuffix("MASK.nii.gz")
            images = tuple(labels.parent / f"{stem}{contrast}.nii.gz" for contrast in contrasts)
            if found and all(image.is_file() for image in images):
                yield PublicStudy(f"mslesseg {found.group(1)}", _reader(images, labels, LESION_LABELS))


def _reader(
    images: tuple[Path, ...], labels: Path, names: tuple[str, ...], *, background: tuple[int, ...] = ()
) -> Callable[[str], Case]:
    def read(case_id: str) -> Case:
        grid = read_image(images)
        values = read_label_values(labels, grid)
        values = np.where(np.isin(values, background), 0, values).astype(np.uint8) if background else values
        if int(values.max()) > len(names):
            raise UnknownLabelError(
                f"{labels.name}: expected values up to {len(names)}, found {int(values.max())}; check the set's name"
            )
        return Case(case_id, grid.image, values, np.ones(values.shape[2], dtype=np.bool_), grid.affine, names)

    return read
