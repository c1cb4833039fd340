"""What a set of cases is like, in numbers: all that a plan is made from.

Terms: the *tissue* is the box around the positive voxels, which is what preprocessing keeps; a *case's fingerprint* is
taken from one case, a *fingerprint* from all of them. Axes are (Z, X, Y), slices first, as in a plan.

Invariants
- One case is looked at at a time and none is kept, so memory does not grow with their number by more than a few
  numbers each; intensities are taken from at most a million voxels of a contrast.
- Labels are counted on annotated slices only: elsewhere 0 means that nobody looked, not that nothing is there.
- There is no name, identifier, date, place in the body or picture in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dafne_dante.annotations.case import Case
from dafne_dante.errors import AnnotationError, NotEnoughCasesError
from dafne_dante.models.preprocess import positive_box

__all__ = ["CaseFingerprint", "Fingerprint", "Intensities", "combine_fingerprints", "fingerprint_case"]

_MAX_SAMPLED_VOXELS = 1_000_000
_PERCENTILES = (0.5, 50.0, 99.5)

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Intensities:
    """Of one contrast over its non-zero voxels: low and high are the 0.5th and the 99.5th percentile."""

    mean: float
    deviation: float
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class CaseFingerprint:
    """What one case is like.

    Attributes:
        labels: their names, in the order of `label_voxels`.
        spacing_mm: millimetres per voxel, (Z, X, Y).
        shape: voxels, (Z, X, Y).
        tissue: voxels of the tissue's box, (Z, X, Y).
        intensities: one a contrast.
        annotated_slices: how many slices somebody labelled.
        label_voxels: voxels of each label on those.
    """

    labels: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    tissue: tuple[int, int, int]
    intensities: tuple[Intensities, ...]
    annotated_slices: int
    label_voxels: tuple[int, ...]


@dataclass(frozen=True)
class Fingerprint:
    """What a set of cases is like; at least one case, all with the same labels and number of contrasts."""

    cases: tuple[CaseFingerprint, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names that all cases share."""
        return self.cases[0].labels

    @property
    def contrasts(self) -> int:
        """Channels of every case."""
        return len(self.cases[0].intensities)

    @property
    def spacings_mm(self) -> npt.NDArray[np.float64]:
        """(cases, 3), along Z, X, Y."""
        return np.array([case.spacing_mm for case in self.cases], dtype=np.float64)

    @property
    def tissues(self) -> npt.NDArray[np.float64]:
        """(cases, 3) voxels of the tissue along Z, X, Y."""
        return np.array([case.tissue for case in self.cases], dtype=np.float64)

    def tissues_at(self, spacing_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(cases, 3) voxels of the tissue, once resampled to `spacing_mm` (Z, X, Y); at least 1."""
        return np.maximum(1.0, np.round(self.tissues * self.spacings_mm / np.asarray(spacing_mm, dtype=np.float64)))

    @property
    def annotated_slices(self) -> float:
        """Median number of labelled slices of a case."""
        return float(np.median([case.annotated_slices for case in self.cases]))

    def describe(self) -> dict[str, object]:
        """Plain values for the screen: sums, medians and ranges over the cases, none of a single one."""
        return {
            "cases": len(self.cases),
            "contrasts": [_describe_contrast([case.intensities[index] for case in self.cases])
                          for index in range(self.contrasts)],
            "spacing_mm": _spread(self.spacings_mm),
            "tissue_voxels": _spread(self.tissues),
            "annotated_slices": sum(case.annotated_slices for case in self.cases),
            "slices": sum(case.shape[0] for case in self.cases),
            "labels": {name: self._describe_label(index) for index, name in enumerate(self.labels)},
        }  # fmt: skip

    def _describe_label(self, index: int) -> dict[str, object]:
        """In how many cases it was drawn, and the median volume of what was drawn there."""
        volumes = [
            case.label_voxels[index] * float(np.prod(case.spacing_mm)) / 1000
            for case in self.cases
            if case.label_voxels[index]
        ]
        return {"cases": len(volumes), "drawn_ml": round(float(np.median(volumes)), 4) if volumes else None}


def fingerprint_case(case: Case) -> CaseFingerprint:
    """What the case is like."""
    start, stop = positive_box(case.image)
    counts = np.bincount(case.segmentation[..., case.annotated].ravel(), minlength=1 + len(case.labels))
    return CaseFingerprint(
        labels=case.labels,
        spacing_mm=_slices_first(*case.spacing_mm),
        shape=_slices_first(*case.shape),
        tissue=_slices_first(*(int(high - low) for low, high in zip(start, stop, strict=True))),
        intensities=tuple(_intensities(contrast) for contrast in case.image),
        annotated_slices=int(case.annotated.sum()),
        label_voxels=tuple(int(count) for count in counts[1:]),
    )


def combine_fingerprints(cases: Iterable[CaseFingerprint]) -> Fingerprint:
    """The fingerprint of all.

    Raises:
        NotEnoughCasesError: there is none.
        AnnotationError: cases differ in labels or in their number of contrasts.
    """
    found = tuple(cases)
    if not found:
        raise NotEnoughCasesError("expected at least one case to configure a model from, found none")
    kinds = {(case.labels, len(case.intensities)) for case in found}
    if len(kinds) > 1:
        raise AnnotationError("expected every case to have the same labels and contrasts; sort them into folders")
    return Fingerprint(found)


def _intensities(contrast: npt.NDArray[np.float32]) -> Intensities:
    """Over voxels chosen by chance where there are many; always the same ones, whatever the image shows."""
    chosen = contrast.reshape(-1)
    if chosen.size > _MAX_SAMPLED_VOXELS:
        chosen = chosen[np.random.default_rng(0).integers(chosen.size, size=_MAX_SAMPLED_VOXELS)]
    values = chosen[chosen != 0].astype(np.float64)
    if not values.size:
        return Intensities(0.0, 0.0, 0.0, 0.0, 0.0)
    low, median, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    return Intensities(float(values.mean()), float(values.std()), low, median, high)


def _describe_contrast(found: list[Intensities]) -> dict[str, float]:
    return {
        name: float(f"{float(np.median([getattr(one, name) for one in found])):.6g}")
        for name in ("mean", "deviation", "low", "median", "high")
    }


def _spread(rows: npt.NDArray[np.float64]) -> dict[str, list[float]]:
    """Smallest, median and largest of (cases, 3)."""
    parts = {"smallest": rows.min(axis=0), "median": np.median(rows, axis=0), "largest": rows.max(axis=0)}
    return {name: [float(f"{value:.6g}") for value in row] for name, row in parts.items()}


def _slices_first(x: _Number, y: _Number, z: _Number) -> tuple[_Number, _Number, _Number]:
    return z, x, y
