"""The file that an interrupted training goes on from.

Layout, version 1: one safetensors file. Its tensors are all that training changes; its `__metadata__` holds strings:
`format`, `version`, `identity` (which training this is), `state` (JSON: whatever is not a tensor) and `sha256` over the
tensors and the state.

Invariants
- One file, written whole: a reader sees the end of one epoch or of another, never a mixture.
- Nothing is unpickled. Size is bounded before reading; header, digest and identity are checked before a value is used.
- A checkpoint belongs to one training: the same plan, recipe, method, prepared cases and first weights. It holds no
  name, path or id of a case.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from dafne_dante.durable import read_bounded, write_stream_atomically
from dafne_dante.errors import TrainingError
from dafne_dante.models.global_model import digest_weights
from dafne_dante.training.prepared import PreparedCase

__all__ = ["Snapshot", "identify_training", "read_checkpoint", "write_checkpoint"]

_FORMAT = "dafne-dante-checkpoint"
_VERSION = "1"
_MAX_HEADER_BYTES = 64 << 20
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ADVICE = "start again without --resume"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Tensors on the CPU by name, and a JSON object of the rest."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def identify_training(
    choices: Sequence[object],
    training: Sequence[PreparedCase],
    held_out: Sequence[PreparedCase],
    first_weights: Mapping[str, Tensor],
) -> str:
    """A digest of the choices (by their repr), of what the cases hold, and of the weights; 64 hexadecimal digits.

    Cases count by their content: their ids are pseudonyms that may be new in every process.
    """
    digest = hashlib.sha256(f"{_FORMAT} {_VERSION} {tuple(choices)!r} {len(training)} {len(held_out)}".encode())
    for case in (*training, *held_out):
        for array in (case.prepared.image, case.target, case.known):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    digest.update(digest_weights({name: tensor.detach().cpu() for name, tensor in first_weights.items()}).encode())
    return digest.hexdigest()


def write_checkpoint(path: Path, snapshot: Snapshot, identity: str) -> None:
    """Replace the checkpoint at `path`; StorageError where the disk refuses, the old one is then kept."""
    state = json.dumps(snapshot.state)  # in its own order, which what is told of an epoch keeps
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "identity": identity,
        "state": state,
        "sha256": _digest(snapshot.tensors, state),
    }
    write_stream_atomically(path, lambda stream: _write_tensors(stream, snapshot.tensors, metadata))


def read_checkpoint(path: Path, identity: str, *, max_bytes: int) -> Snapshot:
    """The checkpoint at `path`, if it is whole and of the training with this identity.

    Raises:
        TrainingError: it is damaged, of another version or of another training.
        StorageError: it cannot be read, or is larger than `max_bytes`.
    """
    content = read_bounded(path, max_bytes=max_bytes)
    metadata = _metadata(content)
    if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
        raise TrainingError(f"expected {path.name} to be a checkpoint of version {_VERSION}, found another; {_ADVICE}")
    try:
        tensors = safetensors.torch.load(content)
        state = json.loads(metadata["state"])
        whole = _digest(tensors, metadata["state"]) == metadata["sha256"] and isinstance(state, dict)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(f"expected {path.name} to be whole, found damage; {_ADVICE}") from error
    if not whole:
        raise TrainingError(f"expected {path.name} to be whole, found that its digest differs; {_ADVICE}")
    if metadata.get("identity") != identity:
        raise TrainingError(
            f"expected {path.name} to be of this training, found one with other cases, labels, settings or seed; "
            f"repeat its options, or {_ADVICE}"
        )
    return Snapshot(tensors, state)


def _metadata(content: bytes) -> dict[str, str]:
    """The strings of a safetensors header; empty where there are none."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(_MAX_HEADER_BYTES, len(content) - 8):
        return {}
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        return {}
    return metadata


def _write_tensors(stream: IO[bytes], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file, tensor by tensor: the library's own writer takes memory for all of them twice more."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # each lies where it is aligned
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _DTYPES[tensors[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    stream.write(len(content).to_bytes(8, "little") + content)
    for name in names:
        stream.write(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    return hashlib.sha256(f"{digest_weights(tensors)} {state}".encode()).hexdigest()
