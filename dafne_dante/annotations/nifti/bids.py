"""A BIDS dataset -> its studies: images with the segmentations that somebody keeps in a derivative.

    dataset_description.json
    sub-1/anat/sub-1_T1w.nii.gz                                     image
    derivatives/manual/dataset_description.json
    derivatives/manual/sub-1/anat/sub-1_dseg.nii.gz                 label map, its names in sub-1_dseg.tsv or dseg.tsv
    derivatives/manual/sub-1/anat/sub-1_label-liver_mask.nii.gz     or one file a label

See `bids_files` for where datasets lie, `bids_pairing` for which image a segmentation belongs to, and `bids_labels`
for what its labels are called.

Invariants: what is in doubt is left with the reason, and what hangs on it, too: no mask of an image is taken where
another one is faulty (the missing label would count as absent), and of two that show one label of one image (two
readers, two programs) neither is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.bids_files import BidsListing, bids_files
from dafne_dante.annotations.nifti.bids_labels import SideFiles, discrete_labels, mask_label
from dafne_dante.annotations.nifti.bids_names import BidsFile
from dafne_dante.annotations.nifti.bids_pairing import BidsImages, may_be_one_acquisition
from dafne_dante.annotations.nifti.files import LabelMap, Masks, NiftiStudy
from dafne_dante.annotations.study import Found, Left
from dafne_dante.errors import AnnotationError, StorageError

__all__ = ["find_bids_studies"]


@dataclass(frozen=True)
class _Mask:
    """A mask that was paired."""

    label: str
    file: BidsFile
    image: BidsFile


def find_bids_studies(folder: Path) -> Found:
    """The studies of the dataset and its derivatives, by dataset and name, and what is left.

    Raises:
        AnnotationError: more files than a search looks at.
        StorageError: a folder cannot be listed.
    """
    listing = bids_files(folder)
    side_files = SideFiles()
    images = BidsImages((*listing.files, *listing.lent), side_files)
    studies: list[NiftiStudy] = []
    masks: list[_Mask] = []
    faulty: list[tuple[BidsFile, str]] = []
    for file in listing.files:
        try:
            if file.suffix == "dseg":
                studies.append(_label_map(file, images, side_files))
            elif file.is_drawn:
                masks.append(_Mask(mask_label(file, side_files), file, images.drawn_on(file)))
        except (AnnotationError, StorageError) as error:
            faulty.append((file, str(error)))
    left = [Left(file.stem, reason) for file, reason in faulty]
    sound, beside = _without_companions(masks, [file for file, _ in faulty])
    of_masks, contradicting = _of_masks(sound)
    alone, rivals = _without_rivals([*studies, *of_masks])
    return Found(alone, (*left, *beside, *contradicting, *rivals, *_unused(folder.name, listing, alone)))


def _label_map(file: BidsFile, images: BidsImages, side_files: SideFiles) -> NiftiStudy:
    labels = discrete_labels(file, side_files)
    image = images.drawn_on(file)
    return NiftiStudy(file.stem, (image.path,), tuple(labels), LabelMap(file.path, tuple(labels.values())))


def _without_companions(masks: Sequence[_Mask], faulty: Iterable[BidsFile]) -> tuple[list[_Mask], list[Left]]:
    """The masks of images all of whose masks are sound, and what to say of the others."""
    beside: dict[Path, list[_Mask]] = {}
    for mask in masks:
        beside.setdefault(mask.file.path.parent, []).append(mask)
    spoilt: dict[tuple[Path, Path], str] = {}
    for file in faulty:
        for mask in beside.get(file.path.parent, ()) if file.suffix == "mask" else ():
            if may_be_one_acquisition(mask.file, file):
                spoilt.setdefault((mask.image.path, file.root), file.path.name)
    sound = [mask for mask in masks if (mask.image.path, mask.file.root) not in spoilt]
    left = [
        Left(mask.file.stem, f"expected all masks of its image to be sound, found a fault in {other}; see there")
        for mask in masks
        if (other := spoilt.get((mask.image.path, mask.file.root)))
    ]
    return sound, left


def _of_masks(masks: Iterable[_Mask]) -> tuple[list[NiftiStudy], list[Left]]:
    """One study of all masks of an image in one derivative."""
    together: dict[tuple[Path, Path], list[_Mask]] = {}
    for mask in masks:
        together.setdefault((mask.image.path, mask.file.root), []).append(mask)
    studies, left = [], []
    for drawn in together.values():
        image = drawn[0].image
        try:
            ordered = _one_a_label(drawn)
        except AnnotationError as error:
            left.append(Left(image.stem, str(error)))
            continue
        labels, paths = tuple(mask.label for mask in ordered), tuple(mask.file.path for mask in ordered)
        studies.append(NiftiStudy(image.stem, (image.path,), labels, Masks(paths)))
    return studies, left


def _one_a_label(drawn: Iterable[_Mask]) -> list[_Mask]:
    """By label; AnnotationError for two of one label."""
    named: dict[str, _Mask] = {}
    for mask in drawn:
        other = named.setdefault(label_key(mask.label), mask)
        if other is not mask:
            names = f"{other.file.path.name} and {mask.file.path.name}"
            raise AnnotationError(f"expected one mask a label, found {names}; remove one")
    return sorted(named.values(), key=lambda mask: (mask.label, mask.file.path))


def _without_rivals(studies: Sequence[NiftiStudy]) -> tuple[tuple[NiftiStudy, ...], list[Left]]:
    """The studies whose labels nobody else has drawn on their image, and what to say of the others."""
    first_two: dict[tuple[Path, str], list[NiftiStudy]] = {}
    for study in studies:
        for label in study.labels:
            same = first_two.setdefault((study.images[0], label_key(label)), [])
            if len(same) < 2:
                same.append(study)
    alone, left = [], []
    for study in studies:
        same = [one for label in study.labels for one in first_two[study.images[0], label_key(label)]]
        other = next((one for one in same if one is not study), None)
        if other is not None:
            names = " and ".join(sorted((_drawn_in(study), _drawn_in(other))))
            reason = f"expected one segmentation of {study.images[0].name} with its labels, found {names}; name the "
            left.append(Left(study.name, reason + "folder of one derivative, or remove one"))
        else:
            alone.append(study)
    return tuple(alone), left


def _drawn_in(study: NiftiStudy) -> str:
    """A file of the study that somebody drew, with the base name of its derivative."""
    path = study.files[1]
    root = next((above for above in path.parents if above.name.startswith("sub-")), path.parent).parent
    return f"{path.name} in {root.name}"


def _unused(name: str, listing: BidsListing, studies: Iterable[NiftiStudy]) -> list[Left]:
    """What nobody has drawn on and what we do not read, each kind in a line."""
    used = {path for study in studies for path in study.images}
    counted = {
        "image(s) without a _dseg or _mask that is taken": sum(
            file.is_raw and file.is_image and file.path not in used for file in listing.files
        ),
        "probability map(s); expected _dseg or _mask": sum(file.suffix == "probseg" for file in listing.files),
        "drawing(s) under other names; expected _dseg or _mask": sum(
            not file.is_image and not file.is_drawn and file.suffix != "probseg" for file in listing.files
        ),
        "NIfTI file(s) or folder(s) whose names or places are none of BIDS": listing.strange,
        "link(s) to files that are not here; fetch them": listing.absent,
        "link(s) to folders, which are not followed": listing.links,
        "derivative(s) without folders sub-<label>": listing.unknown,
    }
    return [Left(name, f"{count} {what}") for what, count in counted.items() if count]
