"""The objects that Dafne's files are made of, rebuilt by code of our own from the names in the pickle.

Terms: a *pending* object is one whose parts the pickle is still handing over; tensors and arrays stay pending, as
views of the file, until somebody asks for their values.

Invariants: none of the named functions of torch, numpy, dill, uuid or pathlib is ever called; a tensor lies within
its storage and has at most as many values as it; an array has exactly the bytes that its shape needs and numbers as
values; nothing is allocated for a claim. Paths are recognised only to be forgotten: they belong to the maker's disk.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dafne_dante.errors import DamagedModelError, UnsafeModelError
from dafne_dante.models.pickle_reader import Budget, Global, Vocabulary
from dafne_dante.models.torch_stream import Storage, read_storage

__all__ = ["LocalPath", "PendingArray", "PendingTensor", "PendingUuid", "model_vocabulary"]

_MAX_AXES = 8
_NUMERIC = re.compile(r"[biuf][1248]")


@dataclass
class PendingUuid:
    """A UUID, complete once its number is there."""

    value: UUID | None = None

    def build(self, state: Any) -> None:
        """Take {"int": 128-bit number, ...}."""
        number = state.get("int") if isinstance(state, dict) else None
        if type(number) is not int or not 0 <= number < 2**128:
            raise _damaged("the number of a UUID")
        self.value = UUID(int=number)


@dataclass
class _PendingType:
    """A numpy dtype: a numeric code such as "f4", and its byte order."""

    code: str
    order: str = "<"

    def build(self, state: Any) -> None:
        """Take numpy's (version, byte order, None, None, None, -1, -1, flags): no fields, no subarrays."""
        if not isinstance(state, tuple) or not 5 <= len(state) <= 8 or any(part is not None for part in state[2:5]):
            raise _damaged("a plain numeric dtype")
        if state[1] not in ("<", ">", "|", "="):
            raise _damaged("a byte order")
        self.order = state[1]

    @property
    def dtype(self) -> "np.dtype[Any]":
        return np.dtype(self.order + self.code)


@dataclass
class PendingArray:
    """A numpy array of numbers: shape, dtype and bytes, once they are there."""

    shape: tuple[int, ...] = (0,)
    type: _PendingType | None = None
    values: memoryview = field(default_factory=lambda: memoryview(b""))
    column_major: bool = False

    def build(self, state: Any) -> None:
        """Take numpy's (version, shape, dtype, column-major, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise _damaged("a numpy array's state")
        self.fill(state[1], state[2], state[4], column_major=state[3] is True)

    def fill(self, shape: Any, kind: Any, values: Any, *, column_major: bool) -> None:
        """Set the parts; UnsafeModelError for values that are not numbers, DamagedModelError for a wrong size."""
        if not isinstance(kind, _PendingType):
            raise _damaged("an array's dtype")
        if not isinstance(values, memoryview):
            raise _damaged("an array's values as bytes")
        sizes = _sizes(shape)
        if math.prod(sizes) * kind.dtype.itemsize != len(values):
            raise _damaged(f"{math.prod(sizes)} array values of {kind.dtype.itemsize} bytes")
        self.shape, self.type, self.values, self.column_major = sizes, kind, values, column_major

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def to_list(self) -> Any:
        """The values as nested lists of Python numbers, a number for an array without axes."""
        if self.type is None or self.size == 0:
            return []
        flat = np.frombuffer(self.values, dtype=self.type.dtype)
        return flat.reshape(self.shape, order="F" if self.column_major else "C").tolist()


@dataclass(frozen=True)
class PendingTensor:
    """A tensor as a view of a storage: values, and axes as (size, stride) in values from `offset`."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def value_bytes(self) -> int:
        """Bytes of the tensor's own values."""
        return math.prod(self.shape) * self.storage.stored.item_bytes

    def to_tensor(self) -> Tensor:
        """A contiguous copy on the CPU, with the dtype of the file."""
        stored = self.storage.stored
        flat: npt.NDArray[Any] = np.frombuffer(self.storage.values, dtype=stored.little_endian)
        if math.prod(self.shape) == 0:
            return torch.empty(self.shape, dtype=stored.dtype)
        strides = [stride * stored.item_bytes for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides, writeable=False)
        values = torch.from_numpy(np.array(view, order="C", copy=True))
        if stored.dtype is torch.bool:
            return values != 0
        return values.view(torch.bfloat16) if stored.dtype is torch.bfloat16 else values


@dataclass(frozen=True)
class LocalPath:
    """A path on the disk of whoever made the file; what it says is not kept."""


def model_vocabulary(budget: Budget) -> Vocabulary:
    """All that a torch model of Dafne or Dante names, also after stock incremental learning (DAFNE.md section 1)."""
    calls: dict[str, Callable[[tuple[Any, ...]], Any]] = {
        "uuid.UUID": _uuid,
        "collections.OrderedDict": _ordered_dictionary,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
        "torch.storage._load_from_bytes": lambda arguments: _storage(arguments, budget),
        "torch.Size": lambda arguments: _sizes(_one(arguments)),
        "numpy.dtype": _type,
        "dill._dill._create_array": _dill_array,
    }
    for package in ("numpy._core", "numpy.core"):  # numpy 2 and numpy 1
        calls[f"{package}.multiarray._reconstruct"] = _array
        calls[f"{package}.multiarray.scalar"] = _scalar
        calls[f"{package}.numeric._frombuffer"] = _array_from_buffer
    for module in ("pathlib", "pathlib._local"):  # Python 3.13 moved them
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
            calls[f"{module}.{name}"] = lambda _arguments: LocalPath()
    return Vocabulary(calls=calls, names=frozenset({"numpy.ndarray"}))


def _uuid(arguments: tuple[Any, ...]) -> PendingUuid:
    if arguments:
        raise _damaged("a UUID without arguments")
    return PendingUuid()


def _ordered_dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise _damaged("an empty OrderedDict")
    return {}


def _storage(arguments: tuple[Any, ...], budget: Budget) -> Storage:
    stream = _one(arguments)
    if not isinstance(stream, memoryview):
        raise _damaged("a storage as bytes")
    return read_storage(stream, budget)


def _tensor(arguments: tuple[Any, ...]) -> PendingTensor:
    """(storage, offset, size, stride, requires_grad, hooks[, metadata]); hooks and metadata must be empty."""
    if not 6 <= len(arguments) <= 7 or not isinstance(arguments[0], Storage) or any(arguments[5:]):
        raise _damaged("a tensor's storage, offset, size and stride")
    storage, offset = arguments[0], arguments[1]
    shape, strides = _sizes(arguments[2]), _sizes(arguments[3])
    if type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise _damaged("a tensor's offset, and a stride for each axis")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > 0 and (last >= storage.length or math.prod(shape) > storage.length):
        raise _damaged(f"a tensor within its {storage.length} stored values")
    return PendingTensor(storage, offset, shape, strides)


def _parameter(arguments: tuple[Any, ...]) -> PendingTensor:
    if len(arguments) != 3 or not isinstance(arguments[0], PendingTensor) or arguments[2]:
        raise _damaged("a parameter made of one tensor")
    return arguments[0]


def _type(arguments: tuple[Any, ...]) -> _PendingType:
    code = arguments[0] if arguments else None
    if not isinstance(code, str) or not _NUMERIC.fullmatch(code):
        raise UnsafeModelError("expected arrays of numbers, found an array that may hold Python objects or text")
    try:
        np.dtype(code)
    except TypeError as error:
        raise _damaged("a dtype that numpy knows") from error
    return _PendingType(code)


def _array(arguments: tuple[Any, ...]) -> PendingArray:
    if not arguments or arguments[0] != Global("numpy.ndarray"):
        raise _damaged("a plain numpy array")
    return PendingArray()


def _array_from_buffer(arguments: tuple[Any, ...]) -> PendingArray:
    """(bytes, dtype, shape, "C" or "F"): how pickle protocol 5 writes arrays."""
    if len(arguments) != 4 or arguments[3] not in ("C", "F"):
        raise _damaged("an array's bytes, dtype, shape and order")
    array = PendingArray()
    array.fill(arguments[2], arguments[1], arguments[0], column_major=arguments[3] == "F")
    return array


def _dill_array(arguments: tuple[Any, ...]) -> PendingArray:
    """(function, its arguments, state, attributes): how dill writes arrays."""
    if not 3 <= len(arguments) <= 4 or not isinstance(arguments[0], Global) or not isinstance(arguments[1], tuple):
        raise _damaged("an array as dill writes it")
    if not arguments[0].name.endswith(".multiarray._reconstruct"):
        raise UnsafeModelError(f"expected only data, found a call of {arguments[0].name}; do not load this file")
    array = _array(arguments[1])
    array.build(arguments[2])
    return array


def _scalar(arguments: tuple[Any, ...]) -> Any:
    array = PendingArray()
    kind, values = arguments if len(arguments) == 2 else (None, None)
    array.fill((), kind, values, column_major=False)
    return array.to_list()


def _one(arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 1:
        raise _damaged("one argument")
    return arguments[0]


def _sizes(shape: Any) -> tuple[int, ...]:
    """Sizes or strides: a tuple of at most 8 whole numbers from 0 to 2**40."""
    if not isinstance(shape, (tuple, list)) or len(shape) > _MAX_AXES:
        raise _damaged("a shape of at most 8 axes")
    if any(type(size) is not int or not 0 <= size <= 2**40 for size in shape):
        raise _damaged("a shape of whole numbers")
    return tuple(shape)


def _damaged(expected: str) -> DamagedModelError:
    return DamagedModelError(f"expected {expected}, found something else; download the file again")
