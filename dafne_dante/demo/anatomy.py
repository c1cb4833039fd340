"""Individuals made from one real brain: the ICBM152 2009a T1 template, deformed smoothly and at random.

What is real: the T1 intensities and the grey- and white-matter maps of the ICBM152 2009a non-linear symmetric template
(an average of 152 scanned brains, without skull; Fonov et al., NeuroImage 2011), read from nilearn's wheel.
What is simulated: that the individuals differ (a smooth random displacement of the one template; where a `Variety` asks
for it, how the head is held, its size, and how bright tissues are).

Terms
- fine grid: half the in-plane voxel of the images to be made, so that an image averages real detail as a scanner does.
- lattice: points every 8 mm on which smooth random fields are drawn, so that a subject does not depend on the grid.
- affine (4, 4) maps a voxel index to millimetres in RAS+; voxel centres, axes X, Y, Z positive.

Invariants: a subject is its seed: the same body in every scanner and at every resolution; image and tissue maps move
by the same field; the field never folds, with each of the varieties that stand here.
"""

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dafne_dante.errors import SettingsError
from dafne_dante.types import Affine

__all__ = ["ALIKE", "LABELS", "PEOPLE", "Anatomy", "Variety", "individual", "smooth_field"]

LABELS = ("grey matter", "white matter")

_MAPS = ("t1", "gm", "wm")
_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_LOWEST_MM = np.array([-106.0, -142.0, -80.0])
_HIGHEST_MM = np.array([106.0, 106.0, 124.0])
"""The template's field of view and 8 mm around it, so that no displaced brain is cut."""
_LATTICE_MM = 8.0
_CENTRE_MM = np.array([0.0, -18.0, 9.0])
"""About which heads are turned and grow: the middle of the template's brain."""

Field = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Variety:
    """How far individuals differ.

    Attributes:
        displacement_mm, smoothing_mm: of the smooth field; its largest displacement is always this.
        turn_degrees: the head is turned about each axis by at most so much.
        size: each axis is longer or shorter by at most this share.
        brightness: largest logarithm of the exponent to which T1 intensities (0 to 1) are raised.
    """

    displacement_mm: float = 9.0
    smoothing_mm: float = 24.0
    turn_degrees: float = 0.0
    size: float = 0.0
    brightness: float = 0.0


ALIKE = Variety()
"""Bodies that differ by their displacement alone: of two of them, structures overlap by a Dice of 0.88 to 0.96."""

PEOPLE = Variety(displacement_mm=14.0, smoothing_mm=20.0, turn_degrees=10.0, size=0.06, brightness=0.2)
"""Heads as they are put into scanners: of two of them, structures overlap by a Dice of 0.55 to 0.70."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One individual on the fine grid; all maps (X, Y, Z) float32.

    Attributes:
        t1: T1-weighted intensity, 0 to 1, 0 outside the brain.
        brain: share of the voxel that is brain.
        grey, white: share of the voxel that is grey or white matter.
        template_mm: (3, X, Y, Z), where in the template the voxel's tissue comes from.
        affine: of the fine grid.
    """

    t1: Field
    brain: Field
    grey: Field
    white: Field
    template_mm: Field
    affine: Affine


def individual(subject_seed: int, fine_mm: float, variety: Variety = ALIKE) -> Anatomy:
    """The subject on a fine grid of `fine_mm` voxels.

    Raises:
        SettingsError: nilearn, which brings the template, is not installed, or is a version without it.
    """
    volumes, to_voxel = _template(max(1, round(fine_mm)))
    affine = _grid_affine(fine_mm)
    shape = tuple(int(n) for n in np.ceil((_HIGHEST_MM - _LOWEST_MM) / fine_mm))
    centres = np.indices(shape, dtype=np.float32) * fine_mm + affine[:3, 3, None, None, None]
    template_mm = _held(centres, subject_seed, variety) + _displacement_mm(subject_seed, shape, variety)
    # The template's axes are RAS with 1 mm voxels: its voxel index is a shift of the position.
    position = (template_mm + to_voxel[:, None, None, None]).astype(np.float32)
    t1, brain, grey, white = (
        ndimage.map_coordinates(volume, position, order=1, mode="constant", cval=0.0) for volume in volumes
    )
    t1 = _shone(t1, subject_seed, variety)
    return Anatomy(t1, brain, grey, white, template_mm.astype(np.float32), affine)


def smooth_field(random: np.random.Generator, shape: tuple[int, ...], smoothing_mm: float) -> Field:
    """A smooth random field over the field of view on a grid of `shape`, float32, largest magnitude 1."""
    lattice = [int(n) for n in np.ceil((_HIGHEST_MM - _LOWEST_MM) / _LATTICE_MM)]
    noise = random.standard_normal(lattice)
    smooth = ndimage.gaussian_filter(noise, smoothing_mm / _LATTICE_MM, mode="nearest")
    zoom = [wide / narrow for wide, narrow in zip(shape, lattice, strict=True)]
    field = ndimage.zoom(smooth / np.abs(smooth).max(), zoom, order=1, mode="nearest", grid_mode=True)
    return np.asarray(field, dtype=np.float32)


def _displacement_mm(subject_seed: int, shape: tuple[int, ...], variety: Variety) -> Field:
    """(3, X, Y, Z) millimetres; the longest anywhere is the variety's."""
    random = np.random.default_rng([subject_seed, 1])
    field = np.stack([smooth_field(random, shape, variety.smoothing_mm) for _ in range(3)])
    longest = np.sqrt((field**2).sum(axis=0)).max()
    return np.asarray(field * (variety.displacement_mm / longest), dtype=np.float32)


def _held(centres_mm: npt.NDArray[np.float64], subject_seed: int, variety: Variety) -> npt.NDArray[np.float64]:
    """Where points (3, X, Y, Z) of the scanner lie in a template that is held and grown as the subject's head is."""
    random = np.random.default_rng([subject_seed, 3])
    turn = Rotation.from_euler("xyz", random.uniform(-1, 1, size=3) * variety.turn_degrees, degrees=True)
    size = 1 + random.uniform(-1, 1, size=3) * variety.size
    if turn.magnitude() == 0 and (size == 1).all():
        return centres_mm
    middle = _CENTRE_MM[:, None, None, None]
    to_template = np.diag(1 / size) @ turn.as_matrix()
    return np.asarray(np.tensordot(to_template, centres_mm - middle, axes=1) + middle, dtype=np.float64)


def _shone(t1: Field, subject_seed: int, variety: Variety) -> Field:
    """The intensities, brighter or darker between black and white."""
    random = np.random.default_rng([subject_seed, 4])
    exponent = np.exp(random.uniform(-1, 1) * variety.brightness)
    return t1 if exponent == 1 else np.asarray(np.clip(t1, 0, 1) ** exponent, dtype=np.float32)


def _grid_affine(voxel_mm: float) -> Affine:
    """Centres of voxels whose first one touches the corner of the field of view."""
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = _LOWEST_MM + voxel_mm / 2
    return affine


@lru_cache(maxsize=2)
def _template(average_mm: int) -> tuple[tuple[Field, ...], npt.NDArray[np.float32]]:
    """T1, brain, grey and white matter at 1 mm, each 0 to 1, and the shift from millimetres to their voxel index.

    Averaged over `average_mm`, so that sampling at that distance does not alias; read-only, because it is shared.
    """
    # Only where nilearn lies matters: importing it takes seconds and its loaders resample.
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        raise SettingsError('expected nilearn, which brings the brain; run: pip install "dafne-dante[demo]"')
    t1, grey, white, affine = _read_template(Path(found.origin).parent / "datasets" / "data")
    brain = (t1 > 0).astype(np.float32)
    maps = tuple(_averaged(volume, average_mm) for volume in (t1, brain, grey, white))
    return maps, -affine[:3, 3].astype(np.float32)


def _read_template(folder: Path) -> tuple[Field, Field, Field, Affine]:
    try:
        images = [nibabel.Nifti1Image.from_filename(folder / _FILE.format(name)) for name in _MAPS]
        t1, grey, white = (np.asarray(np.asarray(image.dataobj) / 255, dtype=np.float32) for image in images)
    except (OSError, EOFError, ImageFileError, HeaderDataError) as error:
        raise SettingsError(
            'expected the ICBM152 2009a template in nilearn, found none that can be read; run: pip install -U "nilearn"'
        ) from error
    return t1, grey, white, np.asarray(images[0].affine, dtype=np.float64)


def _averaged(volume: Field, size: int) -> Field:
    average = volume if size == 1 else ndimage.uniform_filter(volume, size, mode="constant")
    average.flags.writeable = False
    return average
