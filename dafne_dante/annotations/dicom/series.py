"""DICOM files -> image series, each of which is one volume, or a part of one series that is.

A scanner puts into one series what makes several volumes: a localizer's three orientations, echoes, moments, b-values,
magnitude and phase. They are told apart by what the slices themselves say (see `slices`).

Invariants
- Slices of another size, spacing or orientation never share a volume.
- Where slices lie at one place, they are told apart by the first thing that leaves none at one place, else by all of
  it together. What still lies at one place stays together: see `stack`.
- Names and numbers of files decide nothing; the order of the result follows that of the files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dafne_dante.annotations.dicom.elements import text, told_of
from dafne_dante.annotations.dicom.files import DicomFile
from dafne_dante.annotations.dicom.slices import Slice, slices_of
from dafne_dante.annotations.dicom.stack import heights_of
from dafne_dante.annotations.study import Left
from dafne_dante.errors import AnnotationError

__all__ = ["DicomSeries", "group_series"]

_SAME_DIRECTION = 1e-3
_SAME_SPACING = 1e-3  # of the spacing
_SAME_HEIGHT_MM = 1e-2


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """One volume, of which no pixel has been read; UIDs and the description are text of the files, never told.

    Attributes:
        files: in the order in which they were found; an enhanced image has one.
        sop_instance_uids: of the files.
        slices: in no order.
        part: 1 for the first volume of a series, 2 for the second.
        parts: how many volumes the series has.
    """

    uid: str
    study_uid: str
    frame_of_reference_uid: str
    description: str
    modality: str
    files: tuple[Path, ...]
    sop_instance_uids: tuple[str, ...]
    slices: tuple[Slice, ...] = field(repr=False)
    part: int = 1
    parts: int = 1


def group_series(files: Sequence[DicomFile]) -> tuple[list[DicomSeries], list[Left]]:
    """The image series among the files, and the files that belong to none, with the reason."""
    grouped: dict[str, list[Slice]] = {}
    left: list[Left] = []
    for file in files:
        try:
            with told_of(file.path.name):
                grouped.setdefault(file.series_uid, []).extend(slices_of(file))
        except AnnotationError as error:
            left.append(Left(file.path.name, str(error)))
    series: list[DicomSeries] = []
    for slices in grouped.values():
        try:
            with told_of(f"series with {slices[0].file.path.name}" if slices else "series"):
                series += _volumes(slices)
        except AnnotationError as error:
            left.append(Left(slices[0].file.path.name, str(error)))
    return series, left


def _volumes(slices: Sequence[Slice]) -> list[DicomSeries]:
    parts = [part for alike in _alike(slices) for part in _told_apart(alike)]
    return [_series(part, number, len(parts)) for number, part in enumerate(parts, start=1)]


def _series(slices: Sequence[Slice], part: int, parts: int) -> DicomSeries:
    files = list({id(one.file): one.file for one in slices}.values())
    header = files[0].header
    return DicomSeries(
        uid=files[0].series_uid,
        study_uid=files[0].study_uid,
        frame_of_reference_uid=text(header, "FrameOfReferenceUID"),
        description=text(header, "SeriesDescription"),
        modality=files[0].modality,
        files=tuple(file.path for file in files),
        sop_instance_uids=tuple(file.sop_instance_uid for file in files),
        slices=tuple(slices),
        part=part,
        parts=parts,
    )


def _alike(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Slices of one size, spacing and orientation together."""
    groups: list[list[Slice]] = []
    for one in slices:
        group = next((group for group in groups if _is_alike(group[0], one)), None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    return groups


def _is_alike(one: Slice, other: Slice) -> bool:
    a, b = one.plane, other.plane
    return (
        a.shape == b.shape
        and bool(np.allclose(a.spacing_mm, b.spacing_mm, rtol=_SAME_SPACING, atol=0))
        and bool(np.allclose(a.along_row, b.along_row, rtol=0, atol=_SAME_DIRECTION))
        and bool(np.allclose(a.along_column, b.along_column, rtol=0, atol=_SAME_DIRECTION))
    )


def _told_apart(slices: list[Slice]) -> list[list[Slice]]:
    """The slices in parts of which none has two at one place, where that can be."""
    if _places_are_single(slices):
        return [slices]
    keys = [one.apart() for one in slices]
    for position in range(len(keys[0])):
        parts = _split(slices, [key[position : position + 1] for key in keys])
        if len(parts) > 1 and all(_places_are_single(part) for part in parts):
            return parts
    parts = _split(slices, keys)
    return parts if all(_places_are_single(part) for part in parts) else [slices]


def _split(slices: Sequence[Slice], keys: Sequence[tuple[str, ...]]) -> list[list[Slice]]:
    parts: dict[tuple[str, ...], list[Slice]] = {}
    for one, key in zip(slices, keys, strict=True):
        parts.setdefault(key, []).append(one)
    return list(parts.values())


def _places_are_single(slices: Sequence[Slice]) -> bool:
    return bool((np.diff(np.sort(heights_of(slices))) >= _SAME_HEIGHT_MM).all())
