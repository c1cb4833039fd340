"""Folders and files of a site -> the studies in them, whatever they are kept in; mixed if need be.

A folder is judged from the top: a dataset that says what it is (nnU-Net, the Decathlon, BIDS) is taken as a whole;
elsewhere every folder of the tree is looked at for NIfTI studies and Dafne's bundles and exports, and everything else
in the tree together for DICOM, since an archive keeps images and segmentations in folders of their own.

Invariants: nothing is opened that names alone can tell, apart from DICOM headers and the tables of a bundle; links to
folders are not followed, so that a search ends; what cannot be listed or is too much is told, not skipped; hidden
entries do not exist for us; the order of the result does not depend on the file system's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from dafne_dante.annotations.dafne.bundle import find_bundle_studies
from dafne_dante.annotations.dafne.exports import find_export_studies, is_side_file
from dafne_dante.annotations.dafne.npz import ENDING
from dafne_dante.annotations.dicom.studies import find_dicom_studies
from dafne_dante.annotations.nifti.annotated import SIDECAR
from dafne_dante.annotations.nifti.bids import find_bids_studies
from dafne_dante.annotations.nifti.bids_files import is_bids_folder
from dafne_dante.annotations.nifti.files import NiftiStudy, list_folder
from dafne_dante.annotations.nifti.nnunet import find_nnunet_studies, is_nnunet_folder
from dafne_dante.annotations.nifti.plain import find_plain_here
from dafne_dante.annotations.nifti.volume import ENDINGS
from dafne_dante.annotations.study import Found, Left
from dafne_dante.errors import AnnotationError, StorageError

__all__ = ["MAX_ENTRIES", "find_studies_in"]

MAX_ENTRIES = 200_000
"""Files and folders that one search looks at."""
_MAX_DEPTH = 32


@dataclass
class _Search:
    """What a search has come to so far; used once."""

    found: Found = field(default_factory=Found)
    others: list[Path] = field(default_factory=list)
    entries: int = 0
    names: dict[Path, str] = field(default_factory=dict)

    def take(self, name: str, find: Callable[[], Found]) -> None:
        """Add what `find` finds; what it refuses is left under the name."""
        try:
            self.found += find()
        except (AnnotationError, StorageError) as error:
            self.found += Found(left=(Left(name, str(error)),))

    def dataset(self, folder: Path) -> str:
        """What messages call a folder as a dataset; no two have one name."""
        if folder not in self.names:
            same = sum(other.name == folder.name for other in self.names)
            self.names[folder] = f"{folder.name} ({same + 1})" if same else folder.name
        return self.names[folder]


def find_studies_in(paths: Sequence[Path], *, series: str | None = None) -> Found:
    """Every labelled study in the folders and files, in a stable order.

    Args:
        paths: folders, searched with all that is in them, and single files.
        series: of several DICOM series the one with this UID or description; None for those that labels refer to.
    """
    search = _Search()
    for path in dict.fromkeys(path.absolute() for path in paths):
        if path.is_dir():
            _look_into(path, search, _MAX_DEPTH)
        elif path.is_file():
            _look_at_files([path], search)
        else:
            search.take(path.name, lambda: _refuse("expected a folder or a file with labelled studies, found none"))
    if search.others:
        search.take("DICOM", lambda: find_dicom_studies(list(dict.fromkeys(search.others)), series=series))
    return search.found


def _look_into(folder: Path, search: _Search, depth: int) -> None:
    name = folder.name
    if is_nnunet_folder(folder):
        search.take(name, lambda: _as_dataset(Found(tuple(find_nnunet_studies(folder))), search.dataset(folder)))
        return
    if is_bids_folder(folder):
        search.take(name, lambda: find_bids_studies(folder))
        return
    try:
        entries = list_folder(folder)
    except StorageError as error:
        search.found += Found(left=(Left(name, str(error)),))
        return
    search.entries += len(entries)
    if search.entries > MAX_ENTRIES or not depth:
        search.take(name, lambda: _refuse(f"expected at most {MAX_ENTRIES} files, 32 folders deep; name fewer folders"))
        return
    files = [entry for entry in entries if entry.is_file()]
    if any(_is_nifti(path) for path in files):
        search.take(name, lambda: _find_nifti_here(folder, files, search))
    _look_at_files([path for path in files if not _is_nifti(path) and not _is_beside(path, files)], search)
    for inner in _folders_in(entries, search):
        _look_into(inner, search, depth - 1)


def _find_nifti_here(folder: Path, files: Sequence[Path], search: _Search) -> Found:
    """Dafne's exports if the folder holds any, else what a plain folder holds."""
    exports = find_export_studies(folder)
    if exports.studies or exports.left:
        return exports
    return _as_dataset(find_plain_here(folder), search.dataset(_home(folder, files)))


def _look_at_files(files: Sequence[Path], search: _Search) -> None:
    """Single files, each for itself; a NIfTI file alone is an image without labels, or the other way round."""
    for path in files:
        if _is_nifti(path):
            search.take(path.name, lambda: _refuse("expected an image with its labels; name the folder of both"))
        elif path.name.lower().endswith(ENDING):
            search.take(path.name, partial(find_bundle_studies, [path]))
        elif _is_of_pair(path):
            search.take(
                path.name, lambda: _refuse("expected a single .nii file, found an .hdr and .img pair; convert it")
            )
        else:
            search.others.append(path)


def _folders_in(entries: Sequence[Path], search: _Search) -> Iterator[Path]:
    for entry in entries:
        if entry.is_symlink() and entry.is_dir():
            search.found += Found(left=(Left(entry.name, "a link to a folder; name that folder itself"),))
        elif entry.is_dir():
            yield entry


def _home(folder: Path, files: Sequence[Path]) -> Path:
    """The folder of the dataset that NIfTI files here belong to: the one above, where every case has its own."""
    return folder.parent if any(path.name.lower().startswith(("image.", "mask_")) for path in files) else folder


def _is_beside(path: Path, files: Sequence[Path]) -> bool:
    """Whether the file belongs to NIfTI files beside it and is no study of its own."""
    return is_side_file(path) or (path.name == SIDECAR and any(_is_nifti(other) for other in files))


def _is_of_pair(path: Path) -> bool:
    """Whether the file is a half of an Analyze or NIfTI pair; DICOM files may be called .img, but then stand alone."""
    return path.suffix == ".hdr" or (path.suffix == ".img" and path.with_suffix(".hdr").is_file())


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def _as_dataset(found: Found, name: str) -> Found:
    """The same, as parts of a dataset of this name."""
    studies = tuple(replace(one, dataset=name) if isinstance(one, NiftiStudy) else one for one in found.studies)
    return Found(studies, tuple(replace(one, dataset=name) for one in found.left))


def _refuse(reason: str) -> Found:
    raise AnnotationError(reason)
