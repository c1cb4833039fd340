"""A folder of labelled studies -> Cases: the one entrance for NIfTI.

Which layouts there are is told by `nnunet` and `plain`; finding files and opening them are two steps, so that a
folder's names can be shown, or be refused, before gigabytes are read.

Invariants
- Labels are matched by name (outer blanks and letter case do not count), never by value or position: value 1 of one
  site need not be value 1 of another. The segmentation's values follow the order of `labels` where a model gives it.
- A folder and a model must know the same labels; nothing is dropped or invented on the way.
- `case_id` is HMAC-SHA256(key, SHA-256 of the image file), 16 hexadecimal digits: without the key nobody can tell
  from it whether somebody holds a given image. Equal content and key give equal ids.
"""

import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.image import ImageOnGrid, read_image, read_label_values, read_mask
from dafne_dante.annotations.nnunet import find_nnunet_studies, is_nnunet_folder
from dafne_dante.annotations.plain import find_plain_studies
from dafne_dante.annotations.study import LabelMap, Masks, StudyFiles, label_key
from dafne_dante.durable import digest_file
from dafne_dante.errors import AnnotationError, NotEnoughCasesError, TrustError, UnknownLabelError
from dafne_dante.types import Segmentation

__all__ = ["ImageOnGrid", "find_studies", "read_case", "read_cases", "read_image"]

_KEY_OF_THIS_PROCESS = secrets.token_bytes(32)
_ID_DIGITS = 16
_EXPECTED = (
    "expected dataset.json with imagesTr and labelsTr (nnU-Net), a folder a case with image.nii.gz and "
    "mask_<label>.nii.gz, or <case>.nii.gz with <case>_mask_<label>.nii.gz"
)


def find_studies(folder: Path) -> list[StudyFiles]:
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


def read_case(study: StudyFiles, *, labels: tuple[str, ...] | None = None, key: bytes | None = None) -> Case:
    """Read one study; arguments and errors as for `read_cases`. Every slice counts as annotated."""
    order = study.labels if labels is None else labels
    values = _values(study.labels, order)
    grid = read_image(study.images)
    segmentation = _read_segmentation(study, values, grid)
    return Case(
        case_id=_pseudonym(study.images, _KEY_OF_THIS_PROCESS if key is None else key),
        image=grid.image,
        segmentation=segmentation,
        annotated=np.ones(grid.shape[2], dtype=np.bool_),
        affine=grid.affine,
        labels=order,
    )


def read_cases(folder: Path, *, labels: tuple[str, ...] | None = None, key: bytes | None = None) -> list[Case]:
    """Read all labelled studies of a folder, sorted by the names of their files.

    Args:
        folder: in a layout of `nnunet` or `plain`.
        labels: the labels of a model in its order; None for the folder's own.
        key: the site's secret for case_id; None for one that this process forgets, so that ids differ next time.

    Raises:
        NotEnoughCasesError, AnnotationError, StorageError: as for `find_studies`.
        UnknownLabelError: the folder's labels are not those of the model, or a file holds an undeclared value.
        UnreadableImageError: a file that is not a sound NIfTI volume.
        GeometryMismatchError: a file that does not describe its image's grid.
        TrustError: an empty key.
    """
    return [read_case(study, labels=labels, key=key) for study in find_studies(folder)]


def _values(found: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[int, ...]:
    """For each label of a folder its value in the segmentation; UnknownLabelError unless both know the same."""
    positions = {label_key(name): position for position, name in enumerate(wanted, start=1)}
    keys = [label_key(name) for name in found]
    if set(keys) != set(positions) or len(positions) != len(wanted):
        raise UnknownLabelError(
            f"expected the model's labels {', '.join(wanted)}, found {', '.join(found)}; "
            "rename the labels or choose another model"
        )
    return tuple(positions[key] for key in keys)


def _read_segmentation(study: StudyFiles, values: tuple[int, ...], grid: ImageOnGrid) -> Segmentation:
    """(X, Y, Z) uint8 with values[i] where study.labels[i] is drawn."""
    if isinstance(study.annotation, LabelMap):
        return _translated(study.annotation, values, grid)
    return _laid_over(study.annotation, values, grid)


def _translated(annotation: LabelMap, values: tuple[int, ...], grid: ImageOnGrid) -> Segmentation:
    """A label map with its values replaced by ours; UnknownLabelError naming the file and an undeclared value."""
    stored = read_label_values(annotation.path, grid)
    declared = np.zeros(256, dtype=np.bool_)
    declared[[0, *annotation.values]] = True
    undeclared = stored[~declared[stored]]
    if undeclared.size:
        allowed = ", ".join(map(str, (0, *annotation.values)))
        raise UnknownLabelError(
            f"{annotation.path.name}: expected the declared label values {allowed}, found {undeclared[0]}; "
            "declare it in dataset.json or correct the file"
        )
    translation = np.zeros(256, dtype=np.uint8)
    translation[list(annotation.values)] = values
    translated: Segmentation = translation[stored]
    return translated


def _laid_over(annotation: Masks, values: tuple[int, ...], grid: ImageOnGrid) -> Segmentation:
    segmentation = np.zeros(grid.shape, dtype=np.uint8)
    for path, value in zip(annotation.paths, values, strict=True):
        segmentation[read_mask(path, grid)] = value
    return segmentation


def _pseudonym(images: Sequence[Path], key: bytes) -> str:
    if not key:
        raise TrustError(
            "expected a secret key for the pseudonyms of cases, found an empty one; create the site's keys"
        )
    content = b"".join(bytes.fromhex(digest_file(path)) for path in images)
    return hmac.new(key, content, "sha256").hexdigest()[:_ID_DIGITS]
