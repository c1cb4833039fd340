"""Which image a BIDS segmentation was drawn on.

Candidates are the images of the same acquisition in the same space, in the segmentation's own dataset, those around
it and the raw ones. Where its sidecar names images (`Sources`, `RawSources`), they alone count; where those are not
here, only what their names could stand for. Of the candidates the grid decides: raw images first, then the others.
Where that leaves several, or none, there is no answer but the reason.

Invariants: a segmentation in a template's space goes with an image in that space, or with none; a candidate that
cannot be read is never taken for one that does not fit; headers are opened, voxels are not; what sidecars say is
compared with the files that were found and never opened.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dafne_dante.annotations.geometry import Shape, orientation_between, same_grid
from dafne_dante.annotations.nifti.bids_labels import SideFiles
from dafne_dante.annotations.nifti.bids_names import BidsFile, parsed_name
from dafne_dante.annotations.nifti.volume import read_geometry
from dafne_dante.errors import AnnotationError, GeometryMismatchError
from dafne_dante.types import Affine

__all__ = ["BidsImages", "may_be_one_acquisition"]

_MAX_OF_SUBJECT = 2_048  # every segmentation is compared with every image of its subject
_MAX_CANDIDATES = 64  # and with the headers of so many


class BidsImages:
    """The files of a dataset, by subject. Used for one search; every header is opened once."""

    def __init__(self, files: Iterable[BidsFile], side_files: SideFiles) -> None:
        self._side_files = side_files
        self._geometries: dict[Path, tuple[Shape, Affine]] = {}
        self._of_subject: dict[str, list[BidsFile]] = defaultdict(list)
        for file in files:
            self._of_subject[file.entities["sub"]].append(file)

    def drawn_on(self, file: BidsFile) -> BidsFile:
        """The image that a segmentation was drawn on.

        Raises:
            AnnotationError: it cannot be told.
            UnreadableImageError: the header of the segmentation, or of an image that it could be, is damaged.
            GeometryMismatchError: no candidate has its grid.
            StorageError: a sidecar cannot be read.
        """
        candidates = self._candidates(file)
        if not candidates:
            said = _image_names(_sources(self._side_files.sidecar(file)))
            raise AnnotationError(
                f"{file.path.name}: expected the image that "
                + ("its sidecar names under Sources, found none" if said else "it was drawn on, found none")
                + " of its acquisition and space; name the raw dataset's folder, with its derivatives in it"
            )
        if len(candidates) > _MAX_CANDIDATES:
            raise _several(file, candidates)
        for is_raw in (True, False):
            there = [image for image in candidates if image.is_raw == is_raw and self._is_one_grid(image, file)]
            if len(there) > 1:
                raise _several(file, there)
            if there:
                return there[0]
        names = ", ".join(image.path.name for image in candidates[:3])
        raise GeometryMismatchError(f"{file.path.name}: expected the grid of its image, found none on it among {names}")

    def _candidates(self, file: BidsFile) -> list[BidsFile]:
        files = self._of_subject[file.entities["sub"]]
        if len(files) > _MAX_OF_SUBJECT:
            raise AnnotationError(f"expected at most {_MAX_OF_SUBJECT} files of a subject, found more; split them up")
        images = [one for one in files if one.is_image]
        within = [one for one in images if one.is_raw or one.root == file.root or one.root in file.root.parents]
        places = set(_sources(self._side_files.sidecar(file)))
        named = [image for image in within if image.place in places]
        if named:
            return named
        alike = [image for image in within if _fits(image, file)]
        absent = _image_names(places)
        return [image for image in alike if _stands_for(image, absent)] if absent else alike

    def _is_one_grid(self, image: BidsFile, file: BidsFile) -> bool:
        """Whether both describe one grid, up to the order and direction of their axes."""
        shape, affine = self._geometry(file)
        image_shape, image_affine = self._geometry(image)
        turn = orientation_between(affine, shape, image_affine)
        return same_grid(image_affine, image_shape, turn.affine(affine), turn.new_shape)

    def _geometry(self, file: BidsFile) -> tuple[Shape, Affine]:
        if file.path not in self._geometries:
            # A series in time may be what somebody drew on; then reading tells why it is not taken.
            self._geometries[file.path] = read_geometry(file.path, None)
        return self._geometries[file.path]


def may_be_one_acquisition(one: BidsFile, other: BidsFile) -> bool:
    """Whether two files of a dataset lie together, are in one space, and no entity of what was scanned differs."""
    return (
        one.path.parent == other.path.parent
        and one.space == other.space
        and all(other.acquisition.get(key, value) == value for key, value in one.acquisition.items())
    )


def _fits(image: BidsFile, file: BidsFile) -> bool:
    """Whether it is of the same acquisition, in the same space."""
    # A contrast may be told apart by an entity that the segmentation does not repeat; then the grid decides.
    if not file.acquisition.items() <= image.acquisition.items():
        return False
    # `space-T1w` is that of the subject's own T1w image.
    return image.space == file.space or (image.space == ("", "") and file.space == (image.suffix, ""))


def _sources(described: dict[str, Any]) -> list[str]:
    """Places below a dataset that a sidecar names: `bids:<dataset>:<place>`, or in old ones the place alone."""
    listed: list[Any] = []
    for key in ("Sources", "RawSources"):
        value = described.get(key)
        listed += value if isinstance(value, list) else [value]
    return [text.rpartition(":")[2].lstrip("/") for text in listed if isinstance(text, str)]


def _image_names(places: Iterable[str]) -> list[tuple[dict[str, str], str]]:
    """Entities and suffix of those that are images; a source may be a transform or a table as well."""
    parsed = [parsed_name(place.rpartition("/")[2]) for place in places]
    files = [BidsFile(Path(), Path(), False, *one) for one in parsed if one is not None]
    return [(dict(file.acquisition), file.suffix) for file in files if file.is_image]


def _stands_for(image: BidsFile, names: Sequence[tuple[dict[str, str], str]]) -> bool:
    """Whether the image is what one of the named ones was made of, or was made of it: a raw T1w for a cleaned one."""
    return (dict(image.acquisition), image.suffix) in names


def _several(file: BidsFile, images: Sequence[BidsFile]) -> AnnotationError:
    names = " and ".join(image.path.name for image in images[:2])
    more = f" (and {len(images) - 2} more)" if len(images) > 2 else ""
    return AnnotationError(
        f"{file.path.name}: expected one image that it was drawn on, found {names}{more}; name one, and one only, "
        "under Sources in its sidecar"
    )
