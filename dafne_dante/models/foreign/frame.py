"""What goes to the child process and comes back: one JSON object and tensors, as bytes. Never a pickle.

Terms: a *frame* is the length of the JSON (8 bytes, little-endian), the JSON (UTF-8) and a safetensors file.

Invariants: a frame from the child may say anything: it is bounded before it is read, and whoever uses it checks it.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

__all__ = ["FrameError", "pack_frame", "unpack_frame"]

_LENGTH = struct.Struct("<Q")


class FrameError(Exception):
    """The bytes are no frame."""


def pack_frame(message: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """The frame of a message of plain values and of contiguous tensors on the CPU."""
    text = json.dumps(message).encode("utf-8")
    return _LENGTH.pack(len(text)) + text + safetensors.torch.save(dict(tensors))


def unpack_frame(content: bytes, *, max_message_bytes: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The message and the tensors; FrameError for bytes that are no frame, or a message beyond the limit."""
    try:
        (length,) = _LENGTH.unpack_from(content)
        if length > min(max_message_bytes, len(content) - _LENGTH.size):
            raise FrameError("a message beyond its limit")
        end = _LENGTH.size + length
        message = json.loads(content[_LENGTH.size : end])
        tensors = safetensors.torch.load(content[end:])
    except (struct.error, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        raise FrameError(type(error).__name__) from error
    if not isinstance(message, dict):
        raise FrameError(type(message).__name__)
    return message, tensors
