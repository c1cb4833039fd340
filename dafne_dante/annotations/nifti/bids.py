"""A BIDS dataset -> its studies: images with the segmentations that somebody keeps in a derivative.

    dataset_description.json
    sub-1/anat/sub-1_T1w.nii.gz                                     image
    derivatives/manual/dataset_description.json
    derivatives/manual/sub-1/anat/sub-1_dseg.nii.gz                 label map, its names in sub-1_dseg.tsv or dseg.tsv
    derivatives/manual/sub-1/anat/sub-1_label-liver_mask.nii.gz     or one file a label

Which image a segmentation belongs to: the one that its sidecar names (`Sources`, `RawSources`); else, of the images
with the same entities that describe the same grid, a raw one before one of the same derivative. Where that leaves
several, or none, the segmentation is left with the reason.

Invariants: a segmentation in a template's space goes with an image in that space or is left; headers are opened to
compare grids, voxels are not; paths in sidecars are compared with the files that were found and never opened.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dafne_dante.annotations.geometry import Shape, orientation_between, same_grid
from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.bids_files import BidsFile, bids_files
from dafne_dante.annotations.nifti.bids_labels import discrete_labels, mask_label, sidecar
from dafne_dante.annotations.nifti.files import LabelMap, Masks, NiftiStudy
from dafne_dante.annotations.nifti.volume import read_geometry
from dafne_dante.annotations.study import Found, Left
from dafne_dante.errors import AnnotationError, GeometryMismatchError, StorageError
from dafne_dante.types import Affine

__all__ = ["find_bids_studies"]

_DRAWN = ("dseg", "mask")
_NO_IMAGES = (*_DRAWN, "probseg")
_OF_DERIVATIVES = {"label", "desc", "seg", "atlas", "hemi", "den", "scale", "space", "res"}
_SPACES = ("space", "res")
_OWN_SPACES = {"orig", ""}


def find_bids_studies(folder: Path) -> Found:
    """The studies of the dataset and its derivatives, by dataset and name, and what is left.

    Raises:
        AnnotationError: more files than a search looks at.
        StorageError: a folder cannot be listed.
    """
    files = bids_files(folder)
    images = [file for file in files if file.suffix not in _NO_IMAGES]
    studies: list[NiftiStudy] = []
    masks: dict[tuple[Path, Path], list[tuple[str, BidsFile]]] = {}
    left: list[Left] = []
    for file in files:
        if file.suffix not in _DRAWN:
            continue
        try:
            if file.suffix == "dseg":
                studies.append(_label_map(file, images))
            else:
                label = mask_label(file)
                masks.setdefault((_image_of(file, images), file.root), []).append((label, file))
        except (AnnotationError, StorageError) as error:
            left.append(Left(file.stem, str(error)))
    for (image, _), drawn in masks.items():
        try:
            studies.append(_masks(image, drawn))
        except AnnotationError as error:
            left.append(Left(image.name, str(error)))
    return Found(tuple(studies), (*left, *_unused(folder, files, images, studies)))


def _label_map(file: BidsFile, images: Sequence[BidsFile]) -> NiftiStudy:
    labels = discrete_labels(file)
    image = _image_of(file, images)
    return NiftiStudy(file.stem, (image,), tuple(labels), LabelMap(file.path, tuple(labels.values())))


def _masks(image: Path, drawn: Sequence[tuple[str, BidsFile]]) -> NiftiStudy:
    """One study of all masks of an image in one derivative."""
    named: dict[str, tuple[str, Path]] = {}
    for label, file in drawn:
        other = named.setdefault(label_key(label), (label, file.path))[1]
        if other != file.path:
            raise AnnotationError(f"expected one mask a label, found {other.name} and {file.path.name}; remove one")
    ordered = sorted(named.values())
    labels, paths = tuple(label for label, _ in ordered), tuple(path for _, path in ordered)
    name = image.name.partition(".")[0]
    return NiftiStudy(name, (image,), labels, Masks(paths))


def _image_of(file: BidsFile, images: Sequence[BidsFile]) -> Path:
    """The image that the segmentation was drawn on; AnnotationError when that cannot be told."""
    within = [image for image in images if image.is_raw or image.root == file.root]
    named = _sources(sidecar(file))
    said = [image for image in within if image.place in named]
    fitting = [image for image in said or within if said or _has_entities_of(image, file)]
    if not fitting:
        raise AnnotationError(
            f"{file.path.name}: expected the image that it was drawn on, found none with its entities and space; "
            "name the raw dataset's folder, with its derivatives in it"
        )
    shape, affine = read_geometry(file.path)
    there = [image for image in fitting if _is_on_grid(image, shape, affine)]
    if not there:
        names = ", ".join(image.path.name for image in fitting[:3])
        raise GeometryMismatchError(f"{file.path.name}: expected the grid of its image, found none on it among {names}")
    best = [image for image in there if image.is_raw] or there
    if len(best) > 1:
        names = " and ".join(image.path.name for image in best[:2])
        raise AnnotationError(
            f"{file.path.name}: expected one image on its grid, found {names}; name it under Sources in its sidecar"
        )
    return best[0].path


def _has_entities_of(image: BidsFile, file: BidsFile) -> bool:
    """Whether it is from the same acquisition, in the same space."""
    own = {key: value for key, value in image.entities.items() if key not in _OF_DERIVATIVES}
    wanted = {key: value for key, value in file.entities.items() if key not in _OF_DERIVATIVES}
    # A contrast may be told apart by an entity that the segmentation does not repeat; then the grid decides.
    return wanted.items() <= own.items() and _space(image) == _space(file)


def _space(file: BidsFile) -> tuple[str, ...]:
    found = tuple(file.entities.get(key, "") for key in _SPACES)
    return ("", *found[1:]) if found[0] in _OWN_SPACES else found


def _sources(described: dict[str, Any]) -> set[str]:
    """Places below a dataset that a sidecar names: `bids:<dataset>:<place>`, or in old ones the place alone."""
    listed: list[Any] = []
    for key in ("Sources", "RawSources"):
        value = described.get(key)
        listed += value if isinstance(value, list) else [value]
    return {text.rpartition(":")[2].lstrip("/") for text in listed if isinstance(text, str)}


def _is_on_grid(image: BidsFile, shape: Shape, affine: Affine) -> bool:
    """Whether the image has this grid, up to the order and direction of its axes; not if it cannot be read."""
    try:
        image_shape, image_affine = read_geometry(image.path)
        turn = orientation_between(affine, shape, image_affine)
    except AnnotationError:
        return False
    return same_grid(image_affine, image_shape, turn.affine(affine), turn.new_shape)


def _unused(
    folder: Path, files: Sequence[BidsFile], images: Sequence[BidsFile], studies: Sequence[NiftiStudy]
) -> list[Left]:
    """What nobody has drawn on, in one line, and what we do not read, in another."""
    used = {path for study in studies for path in study.images}
    bare = sum(image.is_raw and image.path not in used for image in images)
    likely = sum(file.suffix == "probseg" for file in files)
    left = []
    if bare:
        left.append(Left(folder.name, f"{bare} image(s) that no _dseg or _mask was drawn on"))
    if likely:
        left.append(Left(folder.name, f"{likely} probability map(s); expected _dseg or _mask"))
    return left
