"""Folders and files of a site -> the studies in them, whatever they are kept in; mixed if need be.

A folder is judged from the top: a dataset (nnU-Net, BIDS) is taken as a whole; elsewhere every folder of the tree is
looked at for NIfTI studies and Dafne bundles, and everything else in the tree together for DICOM, since an archive
keeps images and segmentations in folders of their own.

Invariants: nothing is opened that names alone can tell, apart from DICOM headers; links to folders are not followed,
so that a search ends; what cannot be listed or is too much is told, not skipped; hidden entries do not exist for us.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dafne_dante.annotations.nifti.nnunet import find_nnunet_studies, is_nnunet_folder
from dafne_dante.annotations.nifti.plain import find_plain_studies
from dafne_dante.annotations.study import Found, Left
from dafne_dante.errors import AnnotationError

__all__ = ["find_studies_in"]


def find_studies_in(paths: Sequence[Path], *, series: str | None = None) -> Found:
    """Every labelled study in the folders and files, in a stable order.

    Args:
        paths: folders, searched with all that is in them, and single files.
        series: of several DICOM series the one with this UID or description; None for those that labels refer to.
    """
    found = Found()
    for path in paths:
        if not path.exists():
            found += Found(left=(Left(path.name, "expected a folder or a file with labelled studies, found none"),))
            continue
        try:
            studies = find_nnunet_studies(path) if is_nnunet_folder(path) else find_plain_studies(path)
        except AnnotationError as error:
            found += Found(left=(Left(path.name, str(error)),))
        else:
            found += Found(tuple(replace(study, dataset=path.name) for study in studies))
    return found
