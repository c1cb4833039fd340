"""Updates that lie on the disk until rows of one are asked for, so that memory does not grow with their number.

Terms: an update lies either in the delta file that it came in, whose every check passed, in the small form that was
sent (`delta.precision`), or in a file of float32 that `spill` wrote; its *rows* are slices along the first axis of its
weight (O, I, *kernel).

Invariants: what is read is bit for bit what the checked file says; a file is written once, by us, into a folder that
nobody else writes to; only the rows that are asked for are read, and of low-rank factors the whole of B.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import FileIO
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dafne_dante.adaptation.low_rank import FORMS, LowRank, rebuild
from dafne_dante.delta.container import StoredTensor
from dafne_dante.delta.decode import Delta
from dafne_dante.delta.difference import WeightUpdate, factor_norm, outline_of
from dafne_dante.delta.naming import parts_of, rows_name, stored_name
from dafne_dante.delta.outline import Outline, check_outline
from dafne_dante.delta.precision import row_count
from dafne_dante.errors import StorageError

__all__ = ["SpilledUpdates", "set_aside", "spill"]

_NUMPY: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I8": np.dtype("i1")}


@dataclass(frozen=True)
class _Place:
    """Where a stored tensor lies: bytes from the file's start; `scales_at` is None unless it is int8."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    scales_at: int | None = None


@dataclass(frozen=True)
class _Form:
    outline: Outline
    places: tuple[_Place, ...]


class SpilledUpdates(Mapping[str, WeightUpdate]):
    """Weight name to its update, read when asked; StorageError when the file is gone.

    Attributes:
        length: L2 norm over the dense forms of all updates.
    """

    def __init__(self, path: Path, forms: Mapping[str, _Form], length: float) -> None:
        self._path, self._forms, self.length = path, forms, length
        self._fitting: dict[str, tuple[int, ...]] = {}
        self._open: FileIO | None = None

    def __getitem__(self, name: str) -> WeightUpdate:
        form = self._forms[name]
        kind = form.outline.kind
        parts = [self._read(kind, place, 0, row_count(kind, place.shape)).view(place.shape) for place in form.places]
        return WeightUpdate(name, _value(form.outline, parts))

    def __contains__(self, name: object) -> bool:
        # The mapping's own way to find out would be to read the update.
        return name in self._forms

    def __iter__(self) -> Iterator[str]:
        return iter(self._forms)

    def __len__(self) -> int:
        return len(self._forms)

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Until the end of the block the file is opened only once; one that cannot be, fails where it is read."""
        try:
            file = self._path.open("rb", buffering=0)
        except OSError:
            file = None
        with file or nullcontext():
            self._open = file
            try:
                yield
            finally:
                self._open = None

    def rows(self, name: str, shape: tuple[int, ...], begin: int, end: int, out: Tensor | None = None) -> Tensor:
        """Rows `begin` to `end` of the dense form in `shape` (O, I, *kernel), float32; DeltaShapeError for a misfit.

        `out`, contiguous float32 of as many numbers, takes them where it is given.
        """
        form = self._forms[name]
        if self._fitting.get(name) != shape:
            check_outline(form.outline, shape)
            self._fitting[name] = shape
        rows = (end - begin, *shape[1:]) if shape else ()
        if form.outline.kind == "dense":
            return self._read("dense", form.places[0], begin, end, out).view(rows)
        value = self[name].value
        assert isinstance(value, LowRank)
        part = rebuild(LowRank(value.form, value.a[..., begin:end, :], value.b, value.scale), rows)
        return part if out is None else out.view(rows).copy_(part)

    def _read(self, kind: str, place: _Place, begin: int, end: int, out: Tensor | None = None) -> Tensor:
        """Rows of a stored tensor, as `delta.precision` counts them, in float32 (end - begin, numbers of a row)."""
        numbers = prod(place.shape) // row_count(kind, place.shape)
        dtype = _NUMPY[place.dtype]
        parts = [(place.begin + begin * numbers * dtype.itemsize, dtype, (end - begin) * numbers)]
        if place.scales_at is not None:
            parts.append((place.scales_at + 4 * begin, _NUMPY["F32"], end - begin))
        stored, *scales = self._numbers(parts)
        target = torch.empty(end - begin, numbers) if out is None else out.view(end - begin, numbers)
        if scales:
            # Each number is q * c rounded once, as `delta.precision.restore` has it.
            np.multiply(stored.reshape(target.shape), scales[0][:, None], out=target.numpy())
        else:
            np.copyto(target.numpy(), stored.reshape(target.shape))
        return target

    def _numbers(self, parts: Sequence[tuple[int, np.dtype[Any], int]]) -> list[NDArray[Any]]:
        """For each (begin, dtype, count) the numbers there, as they are stored."""
        try:
            if self._open is not None:
                return _numbers_in(self._open, parts)
            with self._path.open("rb", buffering=0) as file:
                return _numbers_in(file, parts)
        except OSError as error:
            raise StorageError("cannot read an update that was set aside; merge again") from error


def set_aside(delta: Delta, path: Path) -> SpilledUpdates:
    """The updates of a delta whose file lies at `path`, byte for byte the one that was decoded."""
    forms: dict[str, _Form] = {}
    for outline in delta.lengths:
        names = (stored_name(outline.weight, part) for part in parts_of(outline.kind))
        forms[outline.weight] = _Form(outline, tuple(_place(delta.tensors, name) for name in names))
    return SpilledUpdates(path, forms, delta.length)


def spill(updates: Iterable[WeightUpdate], path: Path) -> SpilledUpdates:
    """Write the updates to `path` in float32; StorageError where the disk refuses."""
    forms: dict[str, _Form] = {}
    position, squares = 0, 0.0
    try:
        with path.open("wb") as file:
            for update in updates:
                places = []
                for tensor in _tensors(update):
                    places.append(_Place("F32", tuple(tensor.shape), position))
                    position += file.write(StoredTensor.from_tensor(tensor, "F32").content)
                forms[update.weight] = _Form(outline_of(update), tuple(places))
                squares += factor_norm(update.value) ** 2
    except OSError as error:
        raise StorageError("cannot set an update aside; free space in the folder for temporary files") from error
    return SpilledUpdates(path, forms, sqrt(squares))


def _numbers_in(file: FileIO, parts: Sequence[tuple[int, np.dtype[Any], int]]) -> list[NDArray[Any]]:
    found: list[NDArray[Any]] = []
    for begin, dtype, count in parts:
        file.seek(begin)
        content = file.read(count * dtype.itemsize)
        if len(content) != count * dtype.itemsize:
            raise StorageError("an update that was set aside is cut off; merge again")
        found.append(np.frombuffer(content, dtype))
    return found


def _tensors(update: WeightUpdate) -> tuple[Tensor, ...]:
    value = update.value
    return (value.a, value.b) if isinstance(value, LowRank) else (value,)


def _place(tensors: Mapping[str, StoredTensor], name: str) -> _Place:
    stored = tensors[name]
    scales_at = tensors[rows_name(name)].begin if stored.dtype == "I8" else None
    return _Place(stored.dtype, stored.shape, stored.begin, scales_at)


def _value(outline: Outline, parts: list[Tensor]) -> Tensor | LowRank:
    if outline.kind not in FORMS:
        return parts[0]
    return LowRank(outline.kind, parts[0], parts[1], outline.scale)
