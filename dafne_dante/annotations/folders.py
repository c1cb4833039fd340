"""A dataset's folder -> Cases, strictly: one fault refuses the folder.

This is what an operator's validation cases go through, where a case that is silently left out would change what is
measured. A site's own studies go through `collect`, which takes what is sound and tells what it left.

Invariants: a folder and a model must know the same labels; nothing is dropped or invented on the way.
"""

from pathlib import Path

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.labels import LabelNames
from dafne_dante.annotations.nifti.files import NiftiStudy
from dafne_dante.annotations.nifti.nnunet import find_nnunet_studies, is_nnunet_folder
from dafne_dante.annotations.nifti.plain import find_plain_studies
from dafne_dante.annotations.reading import Reading, read_case
from dafne_dante.errors import AnnotationError, NotEnoughCasesError, UnknownLabelError

__all__ = ["find_studies", "read_cases"]

_EXPECTED = (
    "expected dataset.json with imagesTr and labelsTr (nnU-Net), a folder a case with image.nii.gz and "
    "mask_<label>.nii.gz, or <case>.nii.gz with <case>_mask_<label>.nii.gz"
)


def find_studies(folder: Path) -> list[NiftiStudy]:
    """The studies of a folder in one of the known layouts, by name; no image is opened.

    Raises:
        NotEnoughCasesError: there is no such folder, or nothing in it that we know.
        AnnotationError: a layout that is begun but not kept; the message names the file or the case.
        StorageError: a folder cannot be listed.
    """
    if not folder.is_dir():
        raise NotEnoughCasesError(f"expected a folder with labelled cases, found none called {folder.name!r}")
    studies = find_nnunet_studies(folder) if is_nnunet_folder(folder) else find_plain_studies(folder)
    if not studies:
        raise NotEnoughCasesError(f"{_EXPECTED}; found none of them")
    for study in studies:
        if len(study.images) != len(studies[0].images):
            raise AnnotationError(
                f"expected {len(studies[0].images)} contrasts for case {study.name!r} as for "
                f"{studies[0].name!r}, found {len(study.images)}"
            )
    return studies


def read_cases(folder: Path, *, labels: tuple[str, ...] | None = None, key: bytes | None = None) -> list[Case]:
    """Read all labelled studies of a folder, sorted by the names of their files.

    Args:
        folder: in a layout of `nifti.nnunet` or `nifti.plain`.
        labels: the labels of a model in its order; None for the folder's own.
        key: the site's secret for case_id; None for one that this process forgets, so that ids differ next time.

    Raises:
        NotEnoughCasesError, AnnotationError, StorageError: as for `find_studies`.
        UnknownLabelError: the folder's labels are not those of the model, or a file holds an undeclared value.
        UnreadableImageError: a file that is not a sound NIfTI volume.
        GeometryMismatchError: a file that does not describe its image's grid.
        TrustError: an empty key.
    """
    studies = find_studies(folder)
    wanted = studies[0].labels if labels is None else labels
    for study in studies:
        found = LabelNames().resolve(study.labels, wanted)
        if found.unknown or found.missing:
            raise UnknownLabelError(
                f"expected the model's labels {', '.join(wanted)}, found {', '.join(study.labels)}; "
                "rename the labels or choose another model"
            )
    return [read_case(study, wanted, Reading(key=key))[0] for study in studies]
