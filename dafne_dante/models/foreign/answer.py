"""What the child process answered, checked as if an enemy had sent it; for whoever runs its code, one has.

Invariants: names are printable, short and different; each mask is a bool tensor of the image's shape; of failures
only names of exceptions, functions and modules are passed on, since the text of a foreign error could hold anything.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dafne_dante.errors import ForeignCodeError, UnsupportedModelError
from dafne_dante.models.foreign.frame import FrameError, unpack_frame

__all__ = ["Masks", "not_isolated", "read_answer"]

Masks = Mapping[str, npt.NDArray[np.bool_]]
"""Label to mask (X, Y, Z); masks may overlap."""
_MAX_LABELS = 254
_MAX_NAME_LENGTH = 200
_MAX_MESSAGE_BYTES = 256 * 1024
_MAX_KIND_LENGTH = 80


def read_answer(answer: bytes, shape: tuple[int, ...]) -> Masks:
    """The masks, each of `shape` (X, Y, Z).

    Raises:
        UnsupportedModelError: the child could not isolate itself, and has run nothing.
        ForeignCodeError: the code failed, or the answer is not made of masks.
    """
    try:
        message, tensors = unpack_frame(answer, max_message_bytes=_MAX_MESSAGE_BYTES)
    except FrameError as error:
        raise _strange("bytes without meaning") from error
    _tell_failure(message)
    return _checked_masks(message.get("labels"), tensors, shape)


def not_isolated(missing: str) -> UnsupportedModelError:
    """The error for a system that lacks what `missing` tells."""
    return UnsupportedModelError(
        f"expected a system that can isolate a model's own code: {missing}; use the model on such a machine"
    )


def _tell_failure(message: Mapping[str, Any]) -> None:
    if isinstance(missing := message.get("isolation"), str):
        raise not_isolated(_printable(missing))
    if "stage" not in message:
        return
    stage, kind, module = (_printable(message.get(name)) for name in ("stage", "kind", "missing"))
    if module:
        raise ForeignCodeError(
            f"expected masks from the model's code, found that {stage} needs the module {module}, "
            "which could not be loaded; install what the model needs beside dafne-dante"
        )
    raise ForeignCodeError(
        f"expected masks from the model's code, found that {stage} failed with {kind}; it may use no network, no "
        "files, no further process, and only the memory that it is allowed"
    )


def _checked_masks(labels: Any, tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Masks:
    if not isinstance(labels, list) or not 1 <= len(labels) <= _MAX_LABELS or len(labels) != len(tensors):
        raise _strange("no list of labels with a mask for each")
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for number, label in enumerate(labels):
        if not isinstance(label, str) or not 0 < len(label) <= _MAX_NAME_LENGTH or not label.isprintable():
            raise _strange("a label that is no printable name")
        mask = tensors.get(str(number))
        if label in masks or mask is None or mask.dtype is not torch.bool:
            raise _strange("a label twice, or without a mask")
        if tuple(mask.shape) != tuple(shape):
            raise _strange(f"a mask of {mask.ndim} axes that is not of the image's shape")
        # The bytes of a hostile "bool" may be any; a comparison makes them 0 or 1.
        masks[label] = mask.view(torch.uint8).numpy() != 0
    return masks


def _printable(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._ ,()") else "?" for letter in text)[
        :_MAX_KIND_LENGTH
    ]


def _strange(found: str) -> ForeignCodeError:
    return ForeignCodeError(f"expected masks from the model's code, found {found}; do not trust this model")
