"""Dafne's NIfTI exports of masks, and the images that they belong to.

Facts, from reading Dafne 2.1.0a0 (`utils/mask_utils.py`, `ui/MuscleSegmentation.py`) and ormir-pyvoxel 0.0.11
- "Save as NIfTI" writes `<label>.nii.gz` for each label into a folder: 0 and 1, on the grid of the viewer, whose third
  axis runs through the slices and whose other two are the rows and columns of the screen.
- With a 3D model it writes `<label>_<number>.nii.gz` instead, one number for all labels of a study, on the axes of the
  file that was opened. This is right only where those run right, front, head in this order, either way.
- "Save as compact NIfTI" writes one file for all labels, of the name that somebody typed, and beside it
  `<file>.csv` (see `legend`) and `<file>_itk-snap.txt`. A value is the sum of the numbers of the labels at this
  place: where labels overlap it is another label's number or none, and that cannot be undone.
- With a 3D model the axes of the compact form are turned, and its affine is not. Where two axes are equally long
  nobody can tell.
- The image is not among what is written. "Save data as NIfTI" puts it wherever somebody wants.
- Slices that nobody looked at are written, too, and are empty.

Invariants
- Only what lies in one folder belongs together. An image has to describe the grid of its export; where an export is
  called after an image (`leg.nii.gz`, `leg_seg.nii.gz`) it is that one or none, elsewhere it is the only one that fits.
- Every NIfTI file of a folder with an export becomes part of a study or is left with a reason.
- Slices are those of the viewer where the file tells which they were.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dafne_dante.annotations.dafne.export_study import ExportStudy
from dafne_dante.annotations.dafne.legend import read_legend
from dafne_dante.annotations.geometry import Shape, orientation_between, same_grid
from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.files import LabelMap, Masks, checked_label, list_folder, nifti_files
from dafne_dante.annotations.nifti.volume import ENDINGS, read_geometry, read_volume
from dafne_dante.annotations.study import Found, Left, Study
from dafne_dante.errors import AnnotationError, DanteError
from dafne_dante.types import Affine

__all__ = ["find_export_studies", "is_side_file"]

_LEGEND_ENDING = ".csv"
_SIDE_ENDINGS = (_LEGEND_ENDING, "_itk-snap.txt")
_MASK_ENDING = ".nii.gz"
_PLAIN = re.compile(r"mask_|.*_mask_")  # see `nifti.plain`
_NUMBERED = re.compile(r"(?P<label>.+)_(?P<number>[0-9]{1,6})")
_MAX_NUMBER = 255
_MAX_MASK_SHARE = 0.75  # bytes of deflated zeros and ones for each voxel; Huffman codes alone give less for any dtype
_FEW_BYTES = 4096  # headers

_Grid = tuple[Shape, Affine]


@dataclass(frozen=True)
class _Export:
    """What was drawn, before its image is known.

    Attributes:
        name: of the compact file without its ending, else of the folder.
        labels: see ExportStudy; the next two, too.
        grid: that of its first file.
        compact: whether its name was chosen for it, and may tell the image.
    """

    name: str
    labels: tuple[str, ...]
    annotation: LabelMap | Masks
    in_slices: bool
    grid: _Grid
    compact: bool

    def is_called_after(self, image: str) -> bool:
        """Whether the name goes on where that of an image ends, with no letter or digit."""
        rest = self.name.removeprefix(image)
        return self.compact and rest != self.name and not rest[:1].isalnum()


def find_export_studies(folder: Path) -> Found:
    """The exports in a folder, without those of the folders in it; nothing at all when it holds none.

    Headers, legends and what is small enough to be a mask are read.

    Raises:
        AnnotationError: two files share one name but for the ending.
        StorageError: the folder cannot be listed.
    """
    files = nifti_files(list_folder(folder))
    maps = {stem: path for stem, path in files.items() if _legend(path).is_file()}
    plain = [stem for stem in files if _PLAIN.match(stem) and stem not in maps]
    others = [stem for stem in files if stem not in maps and stem not in plain]
    masks = {} if plain else {stem: files[stem] for stem in others if _is_mask(files[stem])}
    if not maps and not masks:
        return Found()
    left = [Left(files[stem].name, "expected an export in a folder of its own, found other masks") for stem in plain]
    exports: list[_Export] = []
    for stem, path in maps.items():
        try:
            exports.append(_compact(stem, path))
        except DanteError as error:
            left.append(Left(path.name, str(error)))
    try:
        exports += [_one_file_a_label(folder.name, masks)] if masks else []
    except DanteError as error:
        left.append(Left(folder.name, str(error)))
    return Found(left=tuple(left)) + _paired(exports, {stem: files[stem] for stem in others if stem not in masks})


def is_side_file(path: Path) -> bool:
    """Whether Dafne has written the file beside a compact export, by its name."""
    return any(path.name.endswith(tuple(f"{ending}{side}" for ending in ENDINGS)) for side in _SIDE_ENDINGS)


def _legend(path: Path) -> Path:
    return path.with_name(path.name + _LEGEND_ENDING)


def _is_mask(path: Path) -> bool:
    """Whether every voxel is 0 or 1; most images are told by their header and the size of the file, unread."""
    if not path.name.lower().endswith(_MASK_ENDING):
        return False
    try:
        shape, _ = read_geometry(path)
        if path.stat().st_size > _FEW_BYTES + _MAX_MASK_SHARE * math.prod(shape):
            return False
        volume, _ = read_volume(path)
    except (DanteError, OSError):
        return False  # what is wrong with it is told where it is wanted
    return bool(((volume == 0) | (volume == 1)).all())


def _compact(stem: str, path: Path) -> _Export:
    numbers = read_legend(_legend(path))
    if max(numbers.values()) > _MAX_NUMBER:
        raise AnnotationError(f"{path.name}: expected at most {_MAX_NUMBER} labels, found more; export fewer at once")
    _check_apart(path.name, numbers)
    drawn = LabelMap(path, tuple(numbers.values()))
    return _Export(stem, tuple(numbers), drawn, in_slices=True, grid=read_geometry(path), compact=True)


def _one_file_a_label(name: str, masks: Mapping[str, Path]) -> _Export:
    """All masks of a folder; numbers behind the labels are left out where they are Dafne's and not the labels' own."""
    shape, affine = read_geometry(masks[min(masks)])
    numbered = [match for stem in masks if (match := _NUMBERED.fullmatch(stem))]
    one_number = len(numbered) == len(masks) and len({match["number"] for match in numbered}) == 1
    # On the screen the axes never run right, front, head in this order, so these are the file's: a 3D model's export.
    is_of_3d_model = one_number and orientation_between(affine, shape, np.eye(4)).axes == (0, 1, 2)
    stems = {match["label"]: match[0] for match in numbered} if is_of_3d_model else {stem: stem for stem in masks}
    paths = {checked_label(label, masks[stem].name): masks[stem] for label, stem in sorted(stems.items())}
    _check_apart(name, stems)
    drawn = Masks(tuple(paths.values()))
    return _Export(name, tuple(paths), drawn, in_slices=not is_of_3d_model, grid=(shape, affine), compact=False)


def _check_apart(name: str, labels: Iterable[str]) -> None:
    keys = [label_key(label) for label in labels]
    if len(set(keys)) != len(keys):
        raise AnnotationError(f"{name}: expected labels that differ in more than spelling, found two alike; rename one")


def _paired(exports: Sequence[_Export], images: Mapping[str, Path]) -> Found:
    """Every export with its image; exports and images that stay alone are left."""
    grids: dict[str, _Grid] = {}
    left: list[Left] = []
    for stem, path in images.items():
        try:
            grids[stem] = read_geometry(path)
        except DanteError as error:
            left.append(Left(path.name, str(error)))
    studies: list[Study] = []
    taken = set()
    for export in exports:
        try:
            stem = _image_of(export, grids)
            _check_only_one(export, stem, exports, grids)
        except AnnotationError as error:
            left.append(Left(export.name, str(error)))
            continue
        taken.add(stem)
        studies.append(ExportStudy(export.name, images[stem], export.labels, export.annotation, export.in_slices))
    left += [
        Left(images[stem].name, "expected labels of this image, found none") for stem in grids if stem not in taken
    ]
    return Found(tuple(studies), tuple(left))


def _image_of(export: _Export, grids: Mapping[str, _Grid]) -> str:
    """The image that the export is called after, else the only one that fits; AnnotationError when there is none."""
    named = [stem for stem in grids if export.is_called_after(stem)]
    fitting = [stem for stem in grids if _fits(export.grid, grids[stem])]
    if named:
        fitting = [stem for stem in fitting if stem == max(named, key=len)]
    if not fitting:
        found = f"{max(named, key=len)} on another grid" if named else "none"
        raise AnnotationError(
            f"{export.name}: expected its image beside it, on the same grid, found {found}; "
            "put it there with 'Save data as NIfTI'"
        )
    if len(fitting) > 1:
        raise AnnotationError(
            f"{export.name}: expected one image that fits, found {', '.join(fitting)}; "
            "call the export <image>_seg.nii.gz, or keep every study in a folder of its own"
        )
    return fitting[0]


def _check_only_one(export: _Export, image: str, exports: Sequence[_Export], grids: Mapping[str, _Grid]) -> None:
    """Of several exports that nothing but the grid binds to an image, all but one may be another image's."""
    rivals = [
        other
        for other in exports
        if other.compact == export.compact
        and _fits(other.grid, grids[image])
        and not any(other.is_called_after(stem) for stem in grids)
    ]
    if export in rivals and len(rivals) > 1:
        raise AnnotationError(
            f"{export.name}: expected one export for {image}, found {len(rivals)}; "
            "call them after their images, <image>_seg.nii.gz, or remove all but one"
        )


def _fits(drawn: _Grid, image: _Grid) -> bool:
    """Whether both are one grid, whatever the order and direction of their axes."""
    (shape, affine), (target_shape, target) = drawn, image
    onto = orientation_between(affine, shape, target)
    return same_grid(target, target_shape, onto.affine(affine), onto.new_shape)
