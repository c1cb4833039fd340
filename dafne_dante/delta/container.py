"""The bytes of a delta file: safetensors, in the one layout that a delta may have.

Layout (safetensors): 8 bytes, little-endian, the header's length; the header, a JSON object of tensor name to
{dtype, shape, data_offsets [begin, end)} and `__metadata__`; then the tensors' bytes, little-endian.

Invariants, stricter than safetensors, so that a file has one byte sequence only and no flipped bit goes unseen: the
header is canonical JSON (`delta.canonical`) filled with spaces to the next multiple of 8 bytes; tensors lie by falling
size of dtype, then by name, without gaps, to the file's last byte; dtypes are F32, F16 and I8 only. Nothing is
allocated by a claim that the file's own length does not back. The safetensors library itself writes the header's keys
in an order of chance, which is why it is not asked to write.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dafne_dante.delta.canonical import canonical_bytes, parse_canonical
from dafne_dante.delta.naming import shown
from dafne_dante.errors import DeltaFormatError, DeltaTooLargeError

__all__ = [
    "DTYPE_BYTES",
    "MAX_DELTA_BYTES",
    "MAX_HEADER_BYTES",
    "Container",
    "StoredTensor",
    "read_container",
    "write_container",
]

MAX_DELTA_BYTES = 2 * 1024**3
MAX_HEADER_BYTES = 8 * 1024**2
DTYPE_BYTES: Mapping[str, int] = {"F32": 4, "F16": 2, "I8": 1}

_LENGTH_BYTES = 8
_ALIGNMENT = 8
_METADATA = "__metadata__"
_NUMPY: Mapping[str, str] = {"F32": "<f4", "F16": "<f2", "I8": "i1"}


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor as its bytes: dtype F32, F16 or I8, little-endian, C order; `begin`: where they lie in a file read."""

    dtype: str
    shape: tuple[int, ...]
    content: bytes | memoryview
    begin: int = 0

    @classmethod
    def from_tensor(cls, tensor: Tensor, dtype: str) -> "StoredTensor":
        """The tensor's values in another dtype: rounded to the nearest, infinite where they do not fit."""
        array = tensor.detach().to("cpu", _TORCH[dtype]).contiguous().numpy()
        return cls(dtype, tuple(tensor.shape), array.astype(_NUMPY[dtype], copy=False).tobytes())

    def to_tensor(self) -> Tensor:
        """A new float32 tensor of `shape` with the stored values."""
        array = np.frombuffer(self.content, dtype=_NUMPY[self.dtype]).astype(np.float32)
        return torch.from_numpy(array.reshape(self.shape))

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return prod(self.shape)

    @property
    def sha256(self) -> str:
        """Digest of the bytes, 64 lower-case hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()


_TORCH: Mapping[str, torch.dtype] = {"F32": torch.float32, "F16": torch.float16, "I8": torch.int8}


@dataclass(frozen=True, eq=False)
class Container:
    """What a safetensors file holds."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, StoredTensor]


def write_container(container: Container) -> bytes:
    """The file's bytes; DeltaTooLargeError where the file or its header would be beyond its limit."""
    names = _order({name: stored.dtype for name, stored in container.tensors.items()})
    document: dict[str, Any] = {_METADATA: dict(container.metadata)}
    position = 0
    for name in names:
        stored = container.tensors[name]
        end = position + len(stored.content)
        document[name] = {"data_offsets": [position, end], "dtype": stored.dtype, "shape": list(stored.shape)}
        position = end
    header = _padded(canonical_bytes(document))
    _check_sizes(len(header), _LENGTH_BYTES + len(header) + position)
    length = len(header).to_bytes(_LENGTH_BYTES, "little")
    return b"".join((length, header, *(container.tensors[name].content for name in names)))


def read_container(content: bytes) -> Container:
    """The parts of a file in the layout of the module docstring.

    Raises:
        DeltaTooLargeError: the file or its header is, or claims to be, beyond its limit.
        DeltaFormatError: any other layout.
    """
    _check_sizes(0, len(content))
    if content[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":
        raise DeltaFormatError("expected a delta, found a file of another kind; choose a .delta file")
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    _check_sizes(length, len(content))
    body = _LENGTH_BYTES + length
    if len(content) < body:
        raise DeltaFormatError(f"expected a header of {length} bytes, found {len(content)} in all; fetch it again")
    document = _parse_header(content[_LENGTH_BYTES:body])
    metadata = document.pop(_METADATA, None)
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DeltaFormatError(f"expected {_METADATA} with texts in the header, found none")
    return Container(metadata, _slice_tensors(document, memoryview(content)[body:], body))


def _parse_header(header: bytes) -> dict[str, Any]:
    trimmed = header.rstrip(b" ")
    document = parse_canonical(trimmed, "the header")
    if header != _padded(trimmed):
        raise DeltaFormatError(f"expected the header filled with spaces to a multiple of {_ALIGNMENT} bytes")
    return document


def _slice_tensors(entries: Mapping[str, Any], body: memoryview, begin: int) -> dict[str, StoredTensor]:
    for name, entry in entries.items():
        _check_entry(name, entry)
    tensors: dict[str, StoredTensor] = {}
    position = 0
    for name in _order({name: entry["dtype"] for name, entry in entries.items()}):
        entry = entries[name]
        shape = tuple(entry["shape"])
        end = position + prod(shape) * DTYPE_BYTES[entry["dtype"]]
        if entry["data_offsets"] != [position, end]:
            raise DeltaFormatError(f"expected {shown(name)} at bytes {position} to {end}, found another place")
        tensors[name] = StoredTensor(entry["dtype"], shape, body[position:end], begin + position)
        position = end
    if position != len(body):
        raise DeltaFormatError(f"expected {position} bytes of tensors, found {len(body)}; fetch the file again")
    return tensors


def _check_entry(name: str, entry: object) -> None:
    if not isinstance(entry, dict) or entry.keys() != {"data_offsets", "dtype", "shape"}:
        raise DeltaFormatError(f"expected data_offsets, dtype and shape for {shown(name)} in the header, found others")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPE_BYTES:
        raise DeltaFormatError(f"expected {shown(name)} as {', '.join(DTYPE_BYTES)}, found another dtype")
    numbers = [entry["shape"], entry["data_offsets"]]
    if not all(isinstance(row, list) and all(type(value) is int for value in row) for row in numbers):
        raise DeltaFormatError(f"expected whole numbers as shape and data_offsets of {shown(name)}, found others")
    if not all(1 <= size < MAX_DELTA_BYTES for size in entry["shape"]) or len(entry["shape"]) > 8:
        raise DeltaFormatError(f"expected at most 8 sizes of 1 or more as shape of {shown(name)}, found others")


def _order(dtypes: Mapping[str, str]) -> list[str]:
    """Names by falling size of dtype, so that every tensor is aligned, then by name."""
    return sorted(dtypes, key=lambda name: (-DTYPE_BYTES[dtypes[name]], name))


def _padded(header: bytes) -> bytes:
    return header + b" " * (-len(header) % _ALIGNMENT)


def _check_sizes(header_bytes: int, file_bytes: int) -> None:
    if file_bytes > MAX_DELTA_BYTES:
        raise DeltaTooLargeError(f"expected a delta of at most {MAX_DELTA_BYTES} bytes, found {file_bytes}")
    if header_bytes > MAX_HEADER_BYTES:
        raise DeltaTooLargeError(f"expected a header of at most {MAX_HEADER_BYTES} bytes, found {header_bytes}")
