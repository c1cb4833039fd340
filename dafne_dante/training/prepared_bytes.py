"""A prepared case as bytes and back.

Layout: 4 bytes (big-endian) with the length of the facts; the facts, JSON, with blanks up to a multiple of 64; image
(float32), target (uint8), known (uint8), each in C order, as this machine stores them.

Invariants: what comes back equals what went in, bit for bit; the case's id is not in the bytes.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from dafne_dante.errors import StorageError
from dafne_dante.models.preprocess import PreparedImage, Record
from dafne_dante.training.prepared import PreparedCase

__all__ = ["decode_prepared", "encode_prepared"]

_LENGTH_BYTES = 4
_ALIGNMENT = 64


def encode_prepared(case: PreparedCase) -> list[memoryview]:
    """The bytes, in pieces; those of the arrays are the arrays' own."""
    facts = {
        "byte_order": sys.byteorder,
        "shape": case.prepared.image.shape,
        "record": asdict(case.prepared.record),
        "side_axes": case.side_axes,
    }
    text = json.dumps(facts).encode()
    text += b" " * (-(len(text) + _LENGTH_BYTES) % _ALIGNMENT)
    arrays = (case.prepared.image, case.target, np.atleast_1d(case.known).view(np.uint8))
    flat = [memoryview(np.ascontiguousarray(array).data).cast("B") for array in arrays]
    return [memoryview(len(text).to_bytes(_LENGTH_BYTES, "big") + text), *flat]


def decode_prepared(content: bytearray, case_id: str) -> PreparedCase:
    """The case in the bytes, whose arrays are those bytes; StorageError when they are not of a prepared case."""
    try:
        begin = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "big")
        facts = json.loads(content[_LENGTH_BYTES:begin])
        return _read(content, begin, facts, case_id)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise StorageError("expected a prepared case as this version writes it, found another content") from error


def _read(content: bytearray, begin: int, facts: dict[str, Any], case_id: str) -> PreparedCase:
    shape = tuple(int(size) for size in facts["shape"])
    grid = shape[1:]
    known_shape = grid[:1] if len(grid) == 3 else ()
    voxels, values, slices = math.prod(grid), math.prod(shape), math.prod(known_shape)
    if facts["byte_order"] != sys.byteorder or min(shape) < 0 or len(content) != begin + 4 * values + voxels + slices:
        raise ValueError("another size")
    image = np.frombuffer(content, np.float32, values, begin)
    target = np.frombuffer(content, np.uint8, voxels, begin + 4 * values)
    known = np.frombuffer(content, np.uint8, slices, begin + 4 * values + voxels)
    return PreparedCase(
        case_id,
        PreparedImage(image.reshape(shape), _record(facts["record"])),
        target.reshape(grid),
        known.astype(np.bool_).reshape(known_shape),
        tuple(int(axis) for axis in facts["side_axes"]),
    )


def _record(facts: dict[str, Any]) -> Record:
    def axes(name: str) -> tuple[int, ...]:
        values: Sequence[Any] = facts[name]
        return tuple(int(value) for value in values)

    return Record(
        original_shape=axes("original_shape"),
        start=axes("start"),
        stop=axes("stop"),
        shape=axes("shape"),
        resampled=bool(facts["resampled"]),
        anisotropic=bool(facts["anisotropic"]),
    )
