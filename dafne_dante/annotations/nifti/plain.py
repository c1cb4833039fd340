"""Plain folders: an image and one mask file a label. Two forms, not mixed:

    <case>/image.nii.gz           a folder a case; further contrasts are image2.nii.gz, image3.nii.gz, ...
    <case>/mask_<label>.nii.gz

    <case>.nii.gz                 or all files side by side, one contrast; a case's name cannot contain "_mask_"
    <case>_mask_<label>.nii.gz

`.nii` is as good as `.nii.gz`. Labels are sorted by name, and where masks overlap the later label counts, both as
stock Dafne does.

Invariants: no NIfTI file is passed over. `find_plain_studies` demands a mask for every label of the folder of every
case: a missing file may mean "absent", "not drawn yet" or "mistyped", and to guess would teach the network that a
structure is background. `find_plain_here` gives each case the labels that it has, and leaves that to who reads it.
A case in a folder of its own may say in `annotated.json` which slices were labelled; without it, all were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.annotated import Sidecar, read_sidecar
from dafne_dante.annotations.nifti.files import Masks, NiftiStudy, checked_label, list_folder, nifti_files
from dafne_dante.annotations.study import Found, Left
from dafne_dante.errors import AnnotationError

__all__ = ["find_plain_here", "find_plain_studies"]

_SEPARATOR = "_mask_"
_PREFIX = "mask_"
_IMAGE = "image"
_HELP = "expected <case>.nii.gz and <case>_mask_<label>.nii.gz, or <case>/image.nii.gz and <case>/mask_<label>.nii.gz"

_MaskFiles = dict[str, tuple[str, Path]]
"""By `label_key`: the label as this case spells it, and its file."""


@dataclass(frozen=True)
class _Found:
    """A case's name, image files and masks, and what it says of its slices."""

    name: str
    images: tuple[Path, ...]
    masks: _MaskFiles
    sidecar: Sidecar | None = None

    def study(self, keys: Sequence[str], labels: Sequence[str]) -> NiftiStudy:
        """With these labels, in this order."""
        drawn = Masks(tuple(self.masks[key][1] for key in keys))
        annotated = None if self.sidecar is None else (self.sidecar.annotated, self.sidecar.slices)
        return NiftiStudy(self.name, self.images, tuple(labels), drawn, annotated=annotated)


def find_plain_studies(folder: Path) -> list[NiftiStudy]:
    """The studies of the folder by name, none when it holds no NIfTI file; nothing is opened.

    Raises:
        AnnotationError: forms are mixed, an image or a mask is missing, or a file fits neither form.
        StorageError: a folder cannot be listed.
    """
    entries = list_folder(folder)
    side_by_side = _cases_side_by_side(nifti_files(entries))
    in_folders = [found for entry in entries if entry.is_dir() if (found := _case_in_folder(entry))]
    if side_by_side and in_folders:
        raise AnnotationError(f"{_HELP}; found both forms in one folder, keep one of them")
    return _complete(side_by_side or in_folders)


def find_plain_here(folder: Path) -> Found:
    """The studies of one folder, without those of the folders in it; what is incomplete is left with the reason.

    Raises:
        AnnotationError: two files share one name but for the ending.
        StorageError: the folder cannot be listed.
    """
    files = nifti_files(list_folder(folder))
    if _IMAGE in files or any(stem.startswith(_PREFIX) for stem in files):
        return _case_here(folder)
    masks = {stem for stem in files if _SEPARATOR in stem}
    studies: list[NiftiStudy] = []
    left = [
        Left(files[stem].name, f"expected the image {stem.partition(_SEPARATOR)[0]}.nii.gz beside its mask, found none")
        for stem in sorted(masks)
        if stem.partition(_SEPARATOR)[0] not in files
    ]
    for stem in sorted(files.keys() - masks):
        own = {one: files[one] for one in (stem, *sorted(masks)) if one == stem or one.startswith(stem + _SEPARATOR)}
        try:
            studies += [_study(found) for found in _cases_side_by_side(own)]
        except AnnotationError as error:
            left.append(Left(stem, str(error)))
    return Found(tuple(studies), tuple(left))


def _case_here(folder: Path) -> Found:
    try:
        found = _case_in_folder(folder)
        return Found((_study(found),) if found else ())
    except AnnotationError as error:
        return Found(left=(Left(folder.name, str(error)),))


def _study(found: _Found) -> NiftiStudy:
    """A case with the labels that it has, by name; AnnotationError when it has none."""
    if not found.masks:
        raise AnnotationError(f"case {found.name!r} has no mask; {_HELP}")
    keys = sorted(found.masks, key=lambda key: found.masks[key][0])
    return found.study(keys, [found.masks[key][0] for key in keys])


def _cases_side_by_side(files: dict[str, Path]) -> list[_Found]:
    images = {stem: path for stem, path in files.items() if _SEPARATOR not in stem}
    masks: dict[str, _MaskFiles] = {stem: {} for stem in images}
    for stem, path in files.items():
        case, separator, label = stem.partition(_SEPARATOR)
        if not separator:
            continue
        if case not in masks:
            raise AnnotationError(f"expected the image {case}.nii.gz beside its mask {path.name}, found none; add it")
        _add(masks[case], label, path)
    return [_Found(name, (images[name],), masks[name]) for name in sorted(images)]


def _case_in_folder(folder: Path) -> _Found | None:
    """What a case's folder holds; None when it has no NIfTI file, and so is no case."""
    files = nifti_files(list_folder(folder))
    if not files:
        return None
    images: list[Path] = []
    while (stem := f"{_IMAGE}{len(images) + 1}" if images else _IMAGE) in files:
        images.append(files.pop(stem))
    if not images:
        raise AnnotationError(f"case {folder.name!r}: expected image.nii.gz in its folder, found none; {_HELP}")
    masks: _MaskFiles = {}
    sidecar = read_sidecar(folder)
    for stem, path in files.items():
        if not stem.startswith(_PREFIX):
            raise AnnotationError(
                f"case {folder.name!r}: expected image.nii.gz, image2.nii.gz, ... and mask_<label>.nii.gz, "
                f"found {path.name}; rename or remove it"
            )
        said = sidecar.masks.get(path.name) if sidecar else None
        _add(masks, said or stem.removeprefix(_PREFIX), path)
    return _Found(folder.name, tuple(images), masks, sidecar)


def _add(masks: _MaskFiles, label: str, path: Path) -> None:
    name = checked_label(label, path.name)
    key = label_key(name)
    if key in masks:
        raise AnnotationError(f"expected one mask a label, found {masks[key][1].name} and {path.name}; remove one")
    masks[key] = (name, path)


def _complete(found: list[_Found]) -> list[NiftiStudy]:
    """Studies with the labels of the whole folder; AnnotationError naming the case and the label that is missing."""
    spellings: dict[str, str] = {}
    for one in found:
        for key, (name, _) in one.masks.items():
            spellings[key] = min(name, spellings.get(key, name))
    keys = sorted(spellings, key=lambda key: spellings[key])
    labels = tuple(spellings[key] for key in keys)
    studies = []
    for one in found:
        if not one.masks:
            raise AnnotationError(f"case {one.name!r} has no mask; {_HELP}")
        missing = next((key for key in keys if key not in one.masks), None)
        if missing is not None:
            label = spellings[missing]
            raise AnnotationError(
                f"case {one.name!r} has no mask for {label!r}; draw it, or add an empty mask if it is absent"
            )
        studies.append(one.study(keys, labels))
    return studies
