"""Updates that lie on the disk until rows of one are asked for, so that memory does not grow with their number.

Terms: an update lies either in the delta file that it came in, whose every check passed, in the small form that was
sent (`delta.precision`), or in a file of float32 that `spill` wrote; its *rows* are slices along the first axis of its
weight (O, I, *kernel).

Invariants: what is read is bit for bit what the checked file says; a file is written once, by us, into a folder that
nobody else writes to; only the rows that are asked for are read, and of low-rank factors the whole of B.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dafne_dante.adaptation.low_rank import FORMS, LowRank, rebuild
from dafne_dante.delta.container import StoredTensor
from dafne_dante.delta.decode import Delta
from dafne_dante.delta.difference import WeightUpdate, check_fit, factor_norm
from dafne_dante.delta.naming import parts_of, rows_name, stored_name
from dafne_dante.delta.precision import kind_of, row_count
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
    kind: str
    scale: float
    places: tuple[_Place, ...]


class SpilledUpdates(Mapping[str, WeightUpdate]):
    """Weight name to its update, read when asked; StorageError when the file is gone.

    Attributes:
        length: L2 norm over the dense forms of all updates.
    """

    def __init__(self, path: Path, forms: Mapping[str, _Form], length: float) -> None:
        self._path, self._forms, self.length = path, forms, length
        self._fitting: dict[str, tuple[int, ...]] = {}

    def __getitem__(self, name: str) -> WeightUpdate:
        form = self._forms[name]
        parts = [self._read(form.kind, place, 0, _rows(form.kind, place)) for place in form.places]
        return WeightUpdate(name, _value(form, parts))

    def __iter__(self) -> Iterator[str]:
        return iter(self._forms)

    def __len__(self) -> int:
        return len(self._forms)

    def rows(self, name: str, shape: tuple[int, ...], begin: int, end: int) -> Tensor:
        """Rows `begin` to `end` of the dense form in `shape` (O, I, *kernel), float32; DeltaShapeError for a misfit."""
        form = self._forms[name]
        if self._fitting.get(name) != shape:
            check_fit(_outline(name, form), shape)
            self._fitting[name] = shape
        if form.kind == "dense":
            return self._read("dense", form.places[0], begin, end)
        value = self[name].value
        assert isinstance(value, LowRank)
        part = LowRank(value.form, value.a[..., begin:end, :], value.b, value.scale)
        return rebuild(part, (end - begin, *shape[1:]))

    def _read(self, kind: str, place: _Place, begin: int, end: int) -> Tensor:
        """Rows of a stored tensor, as `delta.precision` counts them, in float32."""
        numbers = prod(place.shape) // _rows(kind, place)
        dtype = _NUMPY[place.dtype]
        parts = [(place.begin + begin * numbers * dtype.itemsize, dtype, (end - begin) * numbers)]
        if place.scales_at is not None:
            parts.append((place.scales_at + 4 * begin, _NUMPY["F32"], end - begin))
        values, *scales = self._numbers(parts)
        if scales:
            values.view(end - begin, -1).mul_(scales[0][:, None])
        if kind != "dense":
            return values.view(place.shape)
        return values.view((end - begin, *place.shape[1:]) if place.shape else ())

    def _numbers(self, parts: Iterable[tuple[int, np.dtype[Any], int]]) -> list[Tensor]:
        """For each (begin, dtype, count) the numbers there, as float32."""
        try:
            with self._path.open("rb", buffering=0) as file:
                found = [(_read_at(file, begin, count * dtype.itemsize), dtype, count) for begin, dtype, count in parts]
        except OSError as error:
            raise StorageError("cannot read an update that was set aside; merge again") from error
        if any(len(content) != count * dtype.itemsize for content, dtype, count in found):
            raise StorageError("an update that was set aside is cut off; merge again")
        return [torch.from_numpy(np.frombuffer(content, dtype).astype(np.float32)) for content, dtype, _ in found]


def set_aside(delta: Delta, path: Path) -> SpilledUpdates:
    """The updates of a delta whose file lies at `path`, byte for byte the one that was decoded."""
    forms: dict[str, _Form] = {}
    for update in delta.updates:
        kind = kind_of(update)
        places = tuple(_place(delta.tensors, stored_name(update.weight, part)) for part in parts_of(kind))
        forms[update.weight] = _Form(kind, _scale(update), places)
    return SpilledUpdates(path, forms, delta.length)


def spill(updates: Iterable[WeightUpdate], path: Path) -> SpilledUpdates:
    """Write the updates to `path` in float32; StorageError where the disk refuses."""
    forms: dict[str, _Form] = {}
    position, squares = 0, 0.0
    try:
        with path.open("wb") as file:
            for update in updates:
                kind, places = kind_of(update), []
                for tensor in _tensors(update):
                    places.append(_Place("F32", tuple(tensor.shape), position))
                    position += file.write(StoredTensor.from_tensor(tensor, "F32").content)
                forms[update.weight] = _Form(kind, _scale(update), tuple(places))
                squares += factor_norm(update.value) ** 2
    except OSError as error:
        raise StorageError("cannot set an update aside; free space in the folder for temporary files") from error
    return SpilledUpdates(path, forms, sqrt(squares))


def _read_at(file: FileIO, begin: int, count: int) -> bytes:
    file.seek(begin)
    return file.read(count)


def _tensors(update: WeightUpdate) -> tuple[Tensor, ...]:
    value = update.value
    return (value.a, value.b) if isinstance(value, LowRank) else (value,)


def _scale(update: WeightUpdate) -> float:
    return update.value.scale if isinstance(update.value, LowRank) else 1.0


def _place(tensors: Mapping[str, StoredTensor], name: str) -> _Place:
    stored = tensors[name]
    scales_at = tensors[rows_name(name)].begin if stored.dtype == "I8" else None
    return _Place(stored.dtype, stored.shape, stored.begin, scales_at)


def _rows(kind: str, place: _Place) -> int:
    return row_count(kind, place.shape)


def _outline(name: str, form: _Form) -> WeightUpdate:
    """An update of these shapes that takes no memory."""
    return WeightUpdate(name, _value(form, [torch.empty(place.shape, device="meta") for place in form.places]))


def _value(form: _Form, parts: list[Tensor]) -> Tensor | LowRank:
    if form.kind not in FORMS:
        return parts[0]
    return LowRank(form.kind, parts[0], parts[1], form.scale)
