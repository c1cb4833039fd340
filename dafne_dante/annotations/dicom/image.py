"""An image series -> one volume of real values with its place in the patient.

Invariants: voxels are columns, rows, slices, in the files' own order within a slice; values are slope times stored
number plus intercept, of each slice its own (PS3.3, C.11.1.1.2); a volume is no larger than `nifti.volume` allows,
and is not allocated before that is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dafne_dante.annotations.dicom.elements import DicomFault, text, told_of
from dafne_dante.annotations.dicom.pixels import stored_frames
from dafne_dante.annotations.dicom.series import DicomSeries
from dafne_dante.annotations.dicom.slices import Slice
from dafne_dante.annotations.dicom.stack import Stack, stack_slices
from dafne_dante.annotations.geometry import Shape
from dafne_dante.annotations.nifti.volume import MAX_VOXELS
from dafne_dante.types import Affine, Volume

__all__ = ["DicomGeometry", "DicomVolume", "geometry_of", "read_series"]


@dataclass(frozen=True, eq=False)
class DicomGeometry:
    """Where the voxels of a series lie: `affine` (4, 4) of columns, rows, slices in RAS+, `shape` (I, J, K)."""

    affine: Affine
    shape: Shape
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DicomVolume:
    """A series that has been read.

    Attributes:
        volume: (I, J, K) columns, rows, slices; the stored dtype, or float32 where values are scaled.
        affine: (4, 4) of these axes in RAS+.
        sop_instance_uids, frame_numbers: for each slice its file's UID and its frame, from 1.
        frame_of_reference_uid: empty when the files name none.
        notes: what a person should know.
    """

    volume: Volume
    affine: Affine
    sop_instance_uids: tuple[str, ...]
    frame_numbers: tuple[int, ...]
    frame_of_reference_uid: str
    notes: tuple[str, ...]


def geometry_of(series: DicomSeries) -> DicomGeometry:
    """Affine and shape, without opening a file; errors as for `read_series`."""
    with told_of(series.files[0].name):
        stack = stack_slices(series.slices)
        return DicomGeometry(stack.affine, _shape(stack), _notes(stack))


def read_series(series: DicomSeries) -> DicomVolume:
    """Read and decode every slice.

    Raises:
        UnreadableImageError: damaged or missing pixels, a form that no decoder reads, a volume beyond the limit.
        GeometryMismatchError: slices that are missing, uneven, or differ at one place.
        StorageError: a file cannot be read.
    """
    with told_of(series.files[0].name):
        stack = stack_slices(series.slices)
        volume, notes = _read(stack), _notes(stack)
    return DicomVolume(
        volume=volume,
        affine=stack.affine,
        sop_instance_uids=tuple(one.file.sop_instance_uid for one in stack.slices),
        frame_numbers=tuple(one.frame + 1 for one in stack.slices),
        frame_of_reference_uid=series.frame_of_reference_uid,
        notes=notes,
    )


def _shape(stack: Stack) -> Shape:
    rows, columns = stack.slices[0].plane.shape
    return columns, rows, len(stack.slices)


def _read(stack: Stack) -> Volume:
    shape = _shape(stack)
    if int(np.prod(shape, dtype=np.int64)) > MAX_VOXELS:
        raise DicomFault(f"expected at most {MAX_VOXELS} voxels, found more; crop or resample the image")
    scaled = any((one.slope, one.intercept) != (1.0, 0.0) for one in stack.slices)
    volume: Volume | None = None
    copies = {id(one): k for k, one in stack.duplicates}
    places = {id(one): k for k, one in enumerate(stack.slices)}
    for file_slices in _by_file([*stack.slices, *(one for _, one in stack.duplicates)]):
        frames = stored_frames(file_slices[0].file, [one.frame for one in file_slices])
        for one, stored in zip(file_slices, frames, strict=True):
            values = _real(one, stored) if scaled else stored
            if volume is None:
                # Slice by slice in one piece of memory each, so that a slice is copied and not scattered.
                volume = np.empty(shape, dtype=values.dtype.newbyteorder("="), order="F")
            if values.dtype.newbyteorder("=") != volume.dtype:
                raise DicomFault("expected slices stored alike, found several kinds of numbers; export one series")
            if id(one) in places:
                volume[..., places[id(one)]] = values.T
            elif not np.array_equal(volume[..., copies[id(one)]], values.T):
                raise DicomFault("expected one slice at a place, found two that differ; export one series")
    if volume is None:
        raise DicomFault("expected at least one slice, found none")
    return volume


def _by_file(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices of one file together, so that it is opened once; duplicates stay behind what they repeat."""
    files: dict[int, list[Slice]] = {}
    for one in slices:
        files.setdefault(id(one.file), []).append(one)
    return list(files.values())


def _real(one: Slice, stored: Volume) -> Volume:
    values = stored.astype(np.float32)
    values *= np.float32(one.slope)
    values += np.float32(one.intercept)
    return values


def _notes(stack: Stack) -> tuple[str, ...]:
    notes = list(stack.notes)
    if stack.duplicates:
        notes.append(f"{len(stack.duplicates)} slice(s) were there twice, with the same pixels")
    if any(text(one.file.header, "PhotometricInterpretation") == "MONOCHROME1" for one in stack.slices[:1]):
        notes.append("its grey values are meant to be shown inverted; they are taken as stored")
    return tuple(notes)
