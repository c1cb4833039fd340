"""What is labelled in the simulated domains: structures that are told by where they lie, and lesions that grow.

Terms: a *marking* (see `demo.scanners`) takes an individual and gives the body that is seen, and for each label the
share of the fine voxel that it fills. Grey and white matter alone would be no test of adaptation: a network tells them
by their brightness after 16 steps from nothing. Structures that have the same brightness take longer.

What is real: the maps of grey and white matter, and what they leave of the brain, which is fluid. What is drawn: planes
in the template's space (ICBM152, millimetres) that cut these maps into structures; they bend with the individual.
What is simulated: lesions are ellipsoids with a wavy surface in white matter, as dark in T1 as black holes are.

Invariant: a subject's lesions are its seed's, whatever the contrast and the slices; they lie in white matter only.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dafne_dante.demo.anatomy import Anatomy, Field, smooth_field
from dafne_dante.demo.scanners import Marked

__all__ = ["LESION_LABELS", "NEW_LABELS", "SOURCE_LABELS", "mark_lesions", "mark_new", "mark_structures"]

SOURCE_LABELS = ("cortex", "white matter", "deep grey matter", "cerebellum", "brainstem")
NEW_LABELS = ("deep grey matter", "frontal cortex", "fluid")
"""The first stays from the source, the others are new."""
LESION_LABELS = ("lesion",)

_Mask = npt.NDArray[np.bool_]

_DEEP_GREY_MM = ((-31.0, 31.0), (-33.0, 24.0), (-11.0, 21.0))
"""Caudate, putamen, pallidum and thalamus."""
_TENTORIUM_MM, _TENTORIUM_SLOPE = -6.0, 0.2
_CEREBELLUM_BEHIND_MM = -36.0
_BRAINSTEM_MM = ((-17.0, 17.0), (_CEREBELLUM_BEHIND_MM, -10.0), (-np.inf, -8.0))
_FRONTAL_FROM_MM = 15.0
_LESIONS = (6, 10)
_RADIUS_MM = (7.0, 13.0)
_STRETCH = (0.7, 1.3)
_WAVES = 0.35
_WAVE_SMOOTHING_MM = 10.0
_DARKER = 0.55
_IN_WHITE = 0.8
_MOST_DRAWS = 5_000


def mark_structures(anatomy: Anatomy, subject_seed: int) -> Marked:
    """The structures of the source (SOURCE_LABELS)."""
    tissue = anatomy.grey + anatomy.white
    deep, cerebellum, brainstem = _deep(anatomy), _cerebellum(anatomy), _within(anatomy, _BRAINSTEM_MM)
    above = ~(cerebellum | brainstem)
    shares = (
        anatomy.grey * (above & ~deep),
        anatomy.white * above,
        anatomy.grey * deep,
        tissue * cerebellum,
        tissue * brainstem,
    )
    return Marked(anatomy, shares)


def mark_new(anatomy: Anatomy, subject_seed: int) -> Marked:
    """Other structures (NEW_LABELS) of the body as it is."""
    frontal = anatomy.template_mm[1] > _FRONTAL_FROM_MM
    deep = _deep(anatomy)
    fluid = np.clip(anatomy.brain - anatomy.grey - anatomy.white, 0, 1)
    return Marked(anatomy, (anatomy.grey * deep, anatomy.grey * (frontal & ~deep), fluid))


def mark_lesions(anatomy: Anatomy, subject_seed: int) -> Marked:
    """Lesions (LESION_LABELS) that have grown in the white matter."""
    random = np.random.default_rng([subject_seed, 2])
    waves = smooth_field(random, anatomy.white.shape, _WAVE_SMOOTHING_MM)
    lesion = np.zeros_like(anatomy.white)
    for _ in range(int(random.integers(*_LESIONS, endpoint=True))):
        lesion = np.maximum(lesion, _grow(anatomy, random, waves))
    lesion *= anatomy.white
    return Marked(replace(anatomy, t1=anatomy.t1 * (1 - _DARKER * lesion)), (lesion,))


def _deep(anatomy: Anatomy) -> _Mask:
    return _within(anatomy, _DEEP_GREY_MM)


def _cerebellum(anatomy: Anatomy) -> _Mask:
    """Behind the brainstem and below the tentorium, which falls to the back."""
    _, y, z = anatomy.template_mm
    roof = _TENTORIUM_MM + _TENTORIUM_SLOPE * (y - _CEREBELLUM_BEHIND_MM)
    return np.asarray((y < _CEREBELLUM_BEHIND_MM) & (z < roof), dtype=np.bool_)


def _within(anatomy: Anatomy, box: Sequence[tuple[float, float]]) -> _Mask:
    inside = np.ones(anatomy.grey.shape, dtype=np.bool_)
    for place, (low, high) in zip(anatomy.template_mm, box, strict=True):
        inside &= (low <= place) & (place <= high)
    return inside


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
