"""What is labelled in the simulated target domains beyond grey and white matter, and lesions that grow there.

Terms: a *marking* (see `demo.scanners`) takes an individual and gives the body that is seen, and for each label the
share of the fine voxel that it fills.

What is real: fluid is what the template's own maps leave of the brain; deep grey matter is the template's grey matter
within the box of millimetres (ICBM152 space) that holds caudate, putamen, pallidum and thalamus. What is simulated:
lesions are ellipsoids with a wavy surface in white matter, darker in T1, as white matter lesions are.

Invariant: a subject's lesions are its seed's, whatever the contrast and the slices; they lie in white matter only.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dafne_dante.demo.anatomy import Anatomy, Field, smooth_field
from dafne_dante.demo.scanners import Marked

__all__ = ["LESION_LABELS", "STRUCTURE_LABELS", "mark_lesions", "mark_structures"]

STRUCTURE_LABELS = ("grey matter", "deep grey matter", "fluid")
"""The first stays from the source domain, the others are new; white matter is no label here."""
LESION_LABELS = ("lesion",)

_DEEP_GREY_MM = ((-31.0, 31.0), (-33.0, 24.0), (-11.0, 21.0))
_LESIONS = (5, 9)
_RADIUS_MM = (6.0, 11.0)
_STRETCH = (0.7, 1.3)
_WAVES = 0.35
_WAVE_SMOOTHING_MM = 10.0
_DARKER = 0.4
_IN_WHITE = 0.8
_MOST_DRAWS = 5_000


def mark_structures(anatomy: Anatomy, subject_seed: int) -> Marked:
    """Cortical and other outer grey matter, deep grey matter, and fluid (STRUCTURE_LABELS)."""
    inside = np.ones(anatomy.grey.shape, dtype=bool)
    for place, (low, high) in zip(anatomy.template_mm, _DEEP_GREY_MM, strict=True):
        inside &= (low <= place) & (place <= high)
    deep = np.where(inside, anatomy.grey, np.float32(0))
    fluid = np.clip(anatomy.brain - anatomy.grey - anatomy.white, 0, 1)
    return Marked(anatomy, (anatomy.grey - deep, deep, fluid))


def mark_lesions(anatomy: Anatomy, subject_seed: int) -> Marked:
    """Lesions (LESION_LABELS) that have grown in the white matter."""
    random = np.random.default_rng([subject_seed, 2])
    waves = smooth_field(random, anatomy.white.shape, _WAVE_SMOOTHING_MM)
    lesion = np.zeros_like(anatomy.white)
    for _ in range(int(random.integers(*_LESIONS, endpoint=True))):
        lesion = np.maximum(lesion, _grow(anatomy, random, waves))
    lesion *= anatomy.white
    return Marked(replace(anatomy, t1=anatomy.t1 * (1 - _DARKER * lesion)), (lesion,))


def _grow(anatomy: Anatomy, random: np.random.Generator, waves: Field) -> Field:
    """One lesion's share of each voxel, before white matter bounds it; softened over a voxel."""
    voxel_mm = float(anatomy.affine[0, 0])
    centre = _place(anatomy, random)
    radii = random.uniform(*_RADIUS_MM) * random.uniform(*_STRETCH, size=3)
    index = np.indices(anatomy.white.shape, dtype=np.float32)
    axes = zip(index, centre, radii / voxel_mm, strict=True)
    distance = np.sqrt(sum(((along - middle) / radius) ** 2 for along, middle, radius in axes))
    beyond_mm = (distance - (1 + _WAVES * waves)) * float(radii.mean())
    return np.asarray(np.clip(0.5 - beyond_mm / voxel_mm, 0, 1), dtype=np.float32)


def _place(anatomy: Anatomy, random: np.random.Generator) -> Sequence[float] | npt.NDArray[np.float64]:
    """A point (3,) in white matter, as an index; drawn in millimetres, so that the grid hardly matters."""
    white = anatomy.white
    to_index = np.linalg.inv(anatomy.affine)
    low, high = anatomy.affine[:3, 3], anatomy.affine[:3, 3] + np.diag(anatomy.affine)[:3] * (np.array(white.shape) - 1)
    for _ in range(_MOST_DRAWS):
        index = (to_index @ [*random.uniform(low, high), 1.0])[:3]
        if white[tuple(np.round(index).astype(int))] > _IN_WHITE:
            return np.asarray(index)
    return np.asarray(np.unravel_index(int(white.argmax()), white.shape), dtype=np.float64)
