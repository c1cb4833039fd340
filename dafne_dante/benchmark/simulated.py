"""Source and target domains from real MRI through simulated scanners (see `demo.anatomy` for what is real).

Terms: the source is plain T1 with five structures labelled (see `structures`). Each target differs from it in one way:
the contrast is inverted; the coil is weak and uneven; slices are thick; other structures are labelled; lesions have
grown in the white matter, and they alone are labelled.

Invariants: the source's individuals are nobody's in a target; a target's are the same ones in every target, so that
targets differ in what was done to them and in nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.structures import (
    LESION_LABELS,
    NEW_LABELS,
    SOURCE_LABELS,
    mark_lesions,
    mark_new,
    mark_structures,
)
from dafne_dante.demo.anatomy import PEOPLE
from dafne_dante.demo.scanners import SCANNER_A, Marking, Scanner, make_case
from dafne_dante.errors import SettingsError
from dafne_dante.models.plan import ModelPlan

__all__ = ["SOURCE_NAME", "TARGET_NAMES", "simulated_plan", "simulated_source", "simulated_target"]

SOURCE_NAME = "t1"
_INVERTED = Scanner(
    "inverted", contrast=((0.0, 1.0), (0.3, 0.95), (0.62, 0.6), (0.74, 0.48), (0.88, 0.3), (1.0, 0.2)), noise=0.02
)
"""Bright fluid and dark white matter, as in T2."""
_UNEVEN = Scanner("uneven", contrast=((0.0, 0.0), (1.0, 1.0)), bias=0.7, noise=0.1)
_THICK = Scanner("thick", contrast=((0.0, 0.0), (1.0, 1.0)), noise=0.02, slice_factor=3)
_FIRST_SOURCE_SUBJECT, _FIRST_TARGET_SUBJECT = 1_000, 2_000


@dataclass(frozen=True)
class _Kind:
    """How a domain is seen and what is labelled in it."""

    scanner: Scanner
    labels: tuple[str, ...] = SOURCE_LABELS
    mark: Marking = mark_structures


_TARGETS: Mapping[str, _Kind] = MappingProxyType(
    {
        "contrast": _Kind(_INVERTED),
        "bias-noise": _Kind(_UNEVEN),
        "thick-slices": _Kind(_THICK),
        "new-labels": _Kind(SCANNER_A, NEW_LABELS, mark_new),
        "lesions": _Kind(SCANNER_A, LESION_LABELS, mark_lesions),
    }
)
TARGET_NAMES = tuple(_TARGETS)


def simulated_source(subjects: int, voxel_mm: float) -> Domain:
    """The source domain; SettingsError where the extra `demo` is not installed."""
    return _domain(
        SOURCE_NAME, _Kind(SCANNER_A), range(_FIRST_SOURCE_SUBJECT, _FIRST_SOURCE_SUBJECT + subjects), voxel_mm
    )


def simulated_target(name: str, subjects: int, voxel_mm: float) -> Domain:
    """A target domain of TARGET_NAMES.

    Raises:
        SettingsError: there is no such target, or the extra `demo` is not installed.
    """
    if name not in _TARGETS:
        raise SettingsError(f"expected a target from {', '.join(TARGET_NAMES)}, found {name}")
    return _domain(name, _TARGETS[name], range(_FIRST_TARGET_SUBJECT, _FIRST_TARGET_SUBJECT + subjects), voxel_mm)


def simulated_plan(voxel_mm: float) -> ModelPlan:
    """A 3D U-Net whose step takes a twentieth of a second on one core, for voxels of 6 mm or so.

    Its patch of 24 voxels sees most of a head at once.
    """
    return ModelPlan(
        architecture="unet3d",
        labels=SOURCE_LABELS,
        in_channels=1,
        patch=(24, 24, 24),
        spacing_mm=(voxel_mm,) * 3,
        median_shape=(24, 24, 30),
        levels=4,
        residual_units=1,
        first_channels=8,
    )


def _domain(name: str, kind: _Kind, subjects: Sequence[int], voxel_mm: float) -> Domain:
    cases = [_case(f"{name}-{subject}", kind, subject, voxel_mm) for subject in subjects]
    return Domain(name, kind.labels, cases, tuple(f"individual-{subject}" for subject in subjects))


def _case(case_id: str, kind: _Kind, subject: int, voxel_mm: float) -> Case:
    made = make_case(kind.scanner, subject, voxel_mm, mark=kind.mark, variety=PEOPLE)
    annotated = np.ones(made.segmentation.shape[2], dtype=np.bool_)
    return Case(case_id, made.image[np.newaxis], made.segmentation, annotated, made.affine, kind.labels)
