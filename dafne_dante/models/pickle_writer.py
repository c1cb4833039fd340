"""Plain values written as a pickle that every Python reads, in one way only: same values, same bytes.

Terms: a *call* is what the loader will call with which arguments; ours only ever name what Dafne's own files name.

Invariants: no memo and no frames, so the bytes depend on the values alone and not on which of them are one object;
only the opcodes of protocol 2 and long byte strings (protocol 4); large buffers are handed on without a copy.

Source: the opcodes as CPython's pickletools documents them.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np

from dafne_dante.errors import UnsupportedModelError

__all__ = ["ByCall", "ByGlobal", "ByPersistentId", "Chunks", "write_pickle"]

_MAX_DEPTH = 64
_LONG1_BYTES = 255


@dataclass(frozen=True)
class ByGlobal:
    """A Python object by its module and name."""

    module: str
    name: str


@dataclass(frozen=True)
class ByCall:
    """What the loader gets by calling `function` with `arguments`."""

    function: ByGlobal
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class ByPersistentId:
    """What the loader finds under a persistent id."""

    identity: Any


@dataclass(frozen=True)
class Chunks:
    """A byte string in parts."""

    parts: tuple[bytes | memoryview, ...]


Write = Callable[[bytes | memoryview], object]


def write_pickle(value: Any, write: Write, *, protocol: int = 4) -> None:
    """Hand the pickle of `value` to `write`, piece by piece.

    Values are None, bool, int, float, str, list, tuple, dict, OrderedDict, UUID, numpy scalars (as Python's)
    and this module's dataclasses.

    Raises:
        UnsupportedModelError: any other type, text that UTF-8 cannot carry, or more than 64 levels of nesting.
    """
    write(b"\x80" + bytes([protocol]))
    _write(value, write, 0)
    write(b".")


def _write(value: Any, write: Write, depth: int) -> None:
    if isinstance(value, np.generic):  # numpy's numbers become Python's
        value = value.item()
    action = _WRITERS.get(type(value))
    if action is None or depth > _MAX_DEPTH:
        raise UnsupportedModelError(
            f"expected plain values of at most {_MAX_DEPTH} levels, found {type(value).__name__}"
        )
    action(value, write, depth + 1)


def _integer(value: int, write: Write, _depth: int) -> None:
    if -(2**31) <= value < 2**31:
        write(b"J" + struct.pack("<i", value))
        return
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    if len(encoded) > _LONG1_BYTES:
        raise UnsupportedModelError("expected whole numbers of at most 255 bytes, found a longer one")
    write(b"\x8a" + bytes([len(encoded)]) + encoded)


def _text(value: str, write: Write, _depth: int) -> None:
    try:
        encoded = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnsupportedModelError("expected text that UTF-8 can carry, found a lone surrogate; rename it") from error
    write(b"X" + struct.pack("<I", len(encoded)) + encoded)


def _chunks(value: Chunks, write: Write, _depth: int) -> None:
    length = sum(len(part) for part in value.parts)
    write(b"B" + struct.pack("<I", length) if length < 2**32 else b"\x8e" + struct.pack("<Q", length))
    for part in value.parts:
        write(part)


def _list(value: list[Any], write: Write, depth: int) -> None:
    write(b"](")
    for item in value:
        _write(item, write, depth)
    write(b"e")


def _tuple(value: tuple[Any, ...], write: Write, depth: int) -> None:
    write(b"(")
    for item in value:
        _write(item, write, depth)
    write(b"t")


def _items(value: dict[Any, Any], write: Write, depth: int) -> None:
    write(b"(")
    for key, item in value.items():
        _write(key, write, depth)
        _write(item, write, depth)
    write(b"u")


def _dictionary(value: dict[Any, Any], write: Write, depth: int) -> None:
    write(b"}")
    _items(value, write, depth)


def _ordered(value: OrderedDict[Any, Any], write: Write, depth: int) -> None:
    write(b"ccollections\nOrderedDict\n)R")
    _items(value, write, depth)


def _uuid(value: UUID, write: Write, depth: int) -> None:
    write(b"cuuid\nUUID\n)\x81")
    _dictionary({"int": value.int}, write, depth)
    write(b"b")


def _global(value: ByGlobal, write: Write, _depth: int) -> None:
    write(f"c{value.module}\n{value.name}\n".encode())


def _call(value: ByCall, write: Write, depth: int) -> None:
    _global(value.function, write, depth)
    _tuple(value.arguments, write, depth)
    write(b"R")


def _persistent(value: ByPersistentId, write: Write, depth: int) -> None:
    _write(value.identity, write, depth)
    write(b"Q")


_WRITERS: dict[type, Callable[[Any, Write, int], object]] = {
    type(None): lambda _value, write, _depth: write(b"N"),
    bool: lambda value, write, _depth: write(b"\x88" if value else b"\x89"),
    int: _integer,
    float: lambda value, write, _depth: write(b"G" + struct.pack(">d", value)),
    str: _text,
    list: _list,
    tuple: _tuple,
    dict: _dictionary,
    OrderedDict: _ordered,
    UUID: _uuid,
    ByGlobal: _global,
    ByCall: _call,
    ByPersistentId: _persistent,
    Chunks: _chunks,
}
