"""Torch's storage streams (the form before torch 1.6's zip files), read and written without torch.load.

Terms: inside a `.model` file every tensor's values are a byte string that torch's own loader would unpickle: four
small pickles (a magic number, a version, the system's byte order, a persistent id that names class and length of the
storage), a pickled list of keys, an 8-byte length and the raw values, little-endian.

Invariants: a storage is a view of the file, nothing is allocated for it; its claimed length must be the length of the
bytes that follow, exactly; written streams depend on the values alone (torch itself writes a memory address as key).

Source: torch/serialization.py, `_legacy_save` and `_legacy_load`.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dafne_dante.errors import DamagedModelError, UnsupportedModelError
from dafne_dante.models.pickle_reader import Budget, Global, Vocabulary, read_pickle
from dafne_dante.models.pickle_writer import ByGlobal, ByPersistentId, write_pickle

__all__ = ["STORED_TYPES", "Storage", "StoredType", "read_storage", "storage_header"]

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_KEY = "0"


@dataclass(frozen=True)
class StoredType:
    """One of torch's storage classes.

    Attributes:
        name: the class in torch's namespace.
        dtype: of the tensors over it.
        little_endian: numpy's code for values of the same width; bfloat16, which numpy lacks, goes as int16.
        item_bytes: bytes a value.
    """

    name: str
    dtype: torch.dtype
    little_endian: str
    item_bytes: int


STORED_TYPES: tuple[StoredType, ...] = (
    StoredType("FloatStorage", torch.float32, "<f4", 4),
    StoredType("DoubleStorage", torch.float64, "<f8", 8),
    StoredType("HalfStorage", torch.float16, "<f2", 2),
    StoredType("BFloat16Storage", torch.bfloat16, "<i2", 2),
    StoredType("LongStorage", torch.int64, "<i8", 8),
    StoredType("IntStorage", torch.int32, "<i4", 4),
    StoredType("ShortStorage", torch.int16, "<i2", 2),
    StoredType("CharStorage", torch.int8, "|i1", 1),
    StoredType("ByteStorage", torch.uint8, "|u1", 1),
    StoredType("BoolStorage", torch.bool, "|u1", 1),
)
_BY_GLOBAL = {f"torch.{stored.name}": stored for stored in STORED_TYPES}
_BY_DTYPE = {stored.dtype: stored for stored in STORED_TYPES}


@dataclass(frozen=True)
class Storage:
    """Values in a row, still inside the file: `length` values in `values` (bytes, little-endian)."""

    stored: StoredType
    length: int
    values: memoryview


def read_storage(stream: memoryview, budget: Budget) -> Storage:
    """Read the storage that fills `stream` (bytes).

    Raises:
        UnsafeModelError: the stream names anything but a storage class.
        DamagedModelError: not a storage stream, or its length is not the one that it claims.
    """
    nothing, storages = Vocabulary(), Vocabulary(names=frozenset(_BY_GLOBAL), persistent=_claim)
    magic, end = read_pickle(stream, 0, nothing, budget)
    version, end = read_pickle(stream, end, nothing, budget)
    system, end = read_pickle(stream, end, nothing, budget)
    claim, end = read_pickle(stream, end, storages, budget)
    keys, end = read_pickle(stream, end, nothing, budget)
    if (
        magic != _MAGIC
        or version != _VERSION
        or not isinstance(system, dict)
        or system.get("little_endian") is not True
    ):
        raise _damaged("a little-endian torch storage of version 1001")
    if not isinstance(claim, _Claim) or keys != [claim.key]:
        raise _damaged("one storage and its key")
    values = stream[end + 8 :]
    if bytes(stream[end : end + 8]) != struct.pack("<q", claim.length):
        raise _damaged(f"a storage of {claim.length} values")
    if len(values) != claim.length * claim.stored.item_bytes:
        raise _damaged(f"{claim.length} values of {claim.stored.name}")
    return Storage(claim.stored, claim.length, values)


def storage_header(dtype: torch.dtype, length: int) -> bytes:
    """The stream's bytes before `length` raw values of `dtype`; UnsupportedModelError for complex numbers."""
    stored = _BY_DTYPE.get(dtype)
    if stored is None:
        raise UnsupportedModelError(f"expected weights of real numbers, found {dtype}; convert them to float32")
    parts: list[bytes | memoryview] = []
    add: Callable[[bytes | memoryview], object] = parts.append
    write_pickle(_MAGIC, add, protocol=2)
    write_pickle(_VERSION, add, protocol=2)
    sizes = {"short": 2, "int": 4, "long": 4}
    write_pickle({"protocol_version": _VERSION, "little_endian": True, "type_sizes": sizes}, add, protocol=2)
    identity = ("storage", ByGlobal("torch", stored.name), _KEY, "cpu", length, None)
    write_pickle(ByPersistentId(identity), add, protocol=2)
    write_pickle([_KEY], add, protocol=2)
    return b"".join(parts) + struct.pack("<q", length)


@dataclass(frozen=True)
class _Claim:
    """What a persistent id says about the values that follow."""

    stored: StoredType
    length: int
    key: str


def _claim(identity: Any) -> _Claim:
    """("storage", class, key, location, values, view): the location is ignored, a view of a storage is refused."""
    if not isinstance(identity, tuple) or len(identity) != 6 or identity[0] != "storage" or identity[5] is not None:
        raise _damaged("the persistent id of a whole storage")
    _, kind, key, _, length, _ = identity
    if not isinstance(kind, Global) or not isinstance(key, str) or type(length) is not int or length < 0:
        raise _damaged("a storage's class, key and length")
    return _Claim(_BY_GLOBAL[kind.name], length, key)


def _damaged(expected: str) -> DamagedModelError:
    return DamagedModelError(f"expected {expected}, found something else; download the file again")
