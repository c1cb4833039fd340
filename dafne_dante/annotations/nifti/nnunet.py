"""The nnU-Net layout: `dataset.json`, `imagesTr/`, `labelsTr/`; also that of the Medical Segmentation Decathlon.

    dataset.json                  {"labels": {"background": 0, "liver": 1}}, in version 1 {"0": "background", "1": ...}
    imagesTr/<case>_0000.nii.gz   first contrast; <case>_0001.nii.gz the second, and so on
    imagesTr/<case>.nii.gz        or so: one contrast, or all of them along the fourth axis (Decathlon)
    labelsTr/<case>.nii.gz        label map

`.nii` is as good as `.nii.gz`. Where image and label are called differently, the list `training` of dataset.json
({"image": "./imagesTr/img1.nii.gz", "label": "./labelsTr/label1.nii.gz"}) says what belongs together. Source: nnU-Net,
documentation/dataset_format.md (both versions); the dataset.json of the Decathlon.

Invariants: dataset.json is untrusted, so it is bounded, every entry that we use is checked, and no path in it is
followed: paths are compared with the files that were found. Every label file has its images and every image file
belongs to a label file, or the folder is refused.
Not handled, and said so: regions (a label that is a list of values) and the label "ignore".
"""

import json
from pathlib import Path
from typing import Any

from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.files import LabelMap, NiftiStudy, checked_label, list_folder, nifti_files
from dafne_dante.annotations.nifti.volume import ENDINGS
from dafne_dante.durable import read_bounded
from dafne_dante.errors import AnnotationError, NotEnoughCasesError

__all__ = ["DATASET_FILE", "find_nnunet_studies", "is_nnunet_folder"]

DATASET_FILE = "dataset.json"
_MAX_BYTES = 4 << 20
_MAX_VALUE = 255
_MAX_CONTRASTS = 16


def is_nnunet_folder(folder: Path) -> bool:
    """Whether the folder means to have this layout, complete or not."""
    return (folder / DATASET_FILE).exists() or (folder / "imagesTr").is_dir()


def find_nnunet_studies(folder: Path) -> list[NiftiStudy]:
    """The studies of the folder by name; only dataset.json is opened.

    Raises:
        AnnotationError: dataset.json is missing or malformed, or images and labels do not belong together.
        NotEnoughCasesError: labelsTr is missing or empty.
        StorageError: dataset.json cannot be read, or a folder not be listed.
    """
    dataset = _read_dataset(folder)
    labels = _declared_labels(dataset)
    contrasts = _declared_contrasts(dataset)
    listed = _listed_images(dataset)
    images, maps = (_files(folder / name) for name in ("imagesTr", "labelsTr"))
    if not maps:
        raise NotEnoughCasesError("expected label files <case>.nii.gz in labelsTr, found none; add labelled cases")
    studies = []
    for name, path in sorted(maps.items()):
        own = _take_listed(name, listed.get(path.name), images) or _take_images(name, images, contrasts)
        # One file where dataset.json declares several contrasts holds them all, as the Decathlon's do.
        volumes = contrasts or 1 if len(own) == 1 else 1
        drawn = LabelMap(path, tuple(labels.values()))
        studies.append(NiftiStudy(name, own, tuple(labels), drawn, volumes=volumes))
    if images:
        stray = min(images.values()).name
        raise AnnotationError(f"expected a label file in labelsTr for every image, found none for {stray}; add it")
    return studies


def _read_dataset(folder: Path) -> dict[str, Any]:
    if not (folder / DATASET_FILE).is_file():
        raise AnnotationError(f"expected {DATASET_FILE} beside imagesTr, found none; write which labels there are")
    content = read_bounded(folder / DATASET_FILE, max_bytes=_MAX_BYTES)
    try:
        dataset = json.loads(content, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{DATASET_FILE}: expected JSON with every name once, found a fault in it") from error
    if not isinstance(dataset, dict):
        raise AnnotationError(f"{DATASET_FILE}: expected an object with labels, found something else")
    ending = dataset.get("file_ending", ENDINGS[0])
    if ending not in ENDINGS:
        raise AnnotationError(f"{DATASET_FILE}: expected file_ending .nii.gz or .nii, found another; convert the files")
    return dataset


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A label that is declared twice would silently lose its first value."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _declared_labels(dataset: dict[str, Any]) -> dict[str, int]:
    """Label name to value, by value, without the background."""
    declared = dataset.get("labels")
    if not isinstance(declared, dict) or not declared:
        raise AnnotationError(f'{DATASET_FILE}: expected "labels", for example {{"background": 0, "liver": 1}}')
    named = [(checked_label(name, DATASET_FILE), _checked_value(value)) for name, value in _pairs(declared)]
    foreground = sorted((value, name) for name, value in named if value)
    keys = {label_key(name) for _, name in foreground}
    if not foreground or len(keys) != len(foreground):
        raise AnnotationError(f"{DATASET_FILE}: expected at least one label beside background, each with its own name")
    if len({value for value, _ in foreground}) != len(foreground):
        raise AnnotationError(f"{DATASET_FILE}: expected a value of its own for every label, found one value twice")
    if "ignore" in keys:
        raise AnnotationError(f'{DATASET_FILE}: the label "ignore" is not supported; leave such cases out')
    return {name: value for value, name in foreground}


def _pairs(declared: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Label and value, whichever way round the version has them."""
    if all(key.isdecimal() and isinstance(name, str) for key, name in declared.items()):
        return [(name, int(key) if len(key) <= 3 else None) for key, name in declared.items()]
    return list(declared.items())


def _checked_value(value: Any) -> int:
    if isinstance(value, list):
        raise AnnotationError(
            f"{DATASET_FILE}: regions (labels that are lists of values) are not supported; give each label one value"
        )
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_VALUE:
        raise AnnotationError(f"{DATASET_FILE}: expected label values that are whole numbers from 0 to {_MAX_VALUE}")
    return value


def _declared_contrasts(dataset: dict[str, Any]) -> int | None:
    """How many contrasts every case has; None when dataset.json does not say."""
    declared = dataset.get("channel_names", dataset.get("modality"))
    if declared is None:
        return None
    if not isinstance(declared, dict) or not 1 <= len(declared) <= _MAX_CONTRASTS:
        raise AnnotationError(f"{DATASET_FILE}: expected channel_names with 1 to {_MAX_CONTRASTS} entries")
    return len(declared)


def _listed_images(dataset: dict[str, Any]) -> dict[str, str]:
    """The name of a label file to that of its image, as `training` has them; AnnotationError for one in two pairs."""
    listed = dataset.get("training")
    pairs = set()
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict):
            image, label = (
                _name_in(folder, one.get(key)) for folder, key in (("imagesTr", "image"), ("labelsTr", "label"))
            )
            if image and label:
                pairs.add((label, image))
    found = dict(pairs)
    if len(found) != len(pairs) or len(set(found.values())) != len(found):
        raise AnnotationError(f"{DATASET_FILE}: expected every file in one pair of training, found one in two")
    return found


def _name_in(folder: str, place: Any) -> str:
    """The file name of a path of training; empty for one that leads anywhere but into the folder."""
    if not isinstance(place, str):
        return ""
    above, _, name = place.removeprefix("./").partition("/")
    return name if above == folder and "/" not in name else ""


def _take_listed(name: str, listed: str | None, images: dict[str, Path]) -> tuple[Path, ...]:
    """Take the image file that training lists out of `images`; nnU-Net's own lists have names without `_0000`.

    Raises:
        AnnotationError: it lists another one than the file that is called as the case is.
    """
    stem = next((stem for stem, path in images.items() if path.name == listed), None)
    if stem is None:
        return ()
    if stem != name and name in images:
        raise AnnotationError(
            f"{DATASET_FILE}: expected training to list {images[name].name} as the image of {name}, "
            f"found {images[stem].name}; correct the list or the names"
        )
    return (images.pop(stem),)


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise NotEnoughCasesError(f"expected the folder {folder.name} beside {DATASET_FILE}, found none; add it")
    return nifti_files(list_folder(folder))


def _take_images(name: str, images: dict[str, Path], contrasts: int | None) -> tuple[Path, ...]:
    """Take the image files of one case out of `images`; the label files say what a case is called."""
    if name in images:
        return (images.pop(name),)
    own: list[Path] = []
    while (stem := f"{name}_{len(own):04d}") in images:
        own.append(images.pop(stem))
    if not own or len(own) != (contrasts or len(own)):
        raise AnnotationError(
            f"expected {contrasts or 'at least one'} image files {name}_0000.nii.gz, ... in imagesTr, "
            f"found {len(own)}; add them or remove the label file"
        )
    return tuple(own)
