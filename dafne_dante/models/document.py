"""The dictionary inside a `.model` file, read as data, and its entries checked one by one.

Invariants: reading imports and runs nothing (pickle_reader.py); weights are finite, contiguous and own their memory,
with the dtype of the file, and are together no larger than they claim by the file's length; sources stay text.
"""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from dafne_dante.errors import DamagedModelError, UnsupportedModelError
from dafne_dante.models.pickle_reader import Budget, read_pickle
from dafne_dante.models.plain_values import keep_plain
from dafne_dante.models.reconstruct import PendingTensor, PendingUuid, model_vocabulary

__all__ = ["read_document", "read_metadata", "read_model_id", "read_sources", "read_timestamp", "read_weights"]

_FUNCTION = re.compile(r"[a-z_]{1,64}_function")
_MAX_SOURCES = 32
_MAX_SOURCE_LENGTH = 256 * 1024
_MAX_NAME_LENGTH = 512


def read_document(content: bytes) -> dict[Any, Any]:
    """The file's dictionary, its tensors and UUID still pending.

    Raises:
        UnsafeModelError: the file names something that would run code; the message says what.
        UnsupportedModelError: a zip archive such as torch.save writes.
        DamagedModelError: truncated, not a pickle, not a dictionary, or something behind it.
    """
    if content.startswith(b"PK\x03\x04"):
        raise UnsupportedModelError(
            "expected a .model file, found a zip archive such as torch.save writes; export it again"
        )
    budget = Budget()
    document, end = read_pickle(memoryview(content), 0, model_vocabulary(budget), budget)
    if not isinstance(document, dict):
        raise DamagedModelError(f"expected a dictionary, found {type(document).__name__}; this is not a model file")
    if end != len(content):
        raise DamagedModelError(f"expected {end} bytes, found {len(content)}; download the file again")
    return document


def read_metadata(document: Mapping[Any, Any]) -> dict[Any, Any]:
    """The plain values of the metadata, without what stock incremental learning adds (three times the weights).

    Empty where there is none, as in old files.
    """
    metadata = document.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise DamagedModelError(f"expected metadata as a dictionary, found {type(metadata).__name__}")
    return keep_plain({key: None if key == "ewc_data" else value for key, value in metadata.items()})


def read_model_id(value: Any) -> UUID:
    """The family; DamagedModelError where it is no UUID."""
    if not isinstance(value, PendingUuid) or value.value is None:
        raise DamagedModelError("expected model_id as a UUID, found something else; download the file again")
    return value.value


def read_timestamp(value: Any) -> int:
    """Seconds since 1970; DamagedModelError for anything else."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise DamagedModelError("expected timestamp_id as seconds since 1970, found something else")
    return value


def read_weights(found: Any, *, max_bytes: int) -> dict[str, Tensor]:
    """Name to tensor; the bound keeps many views of one storage from filling the memory."""
    if not isinstance(found, dict) or not found:
        raise DamagedModelError("expected weights by name, found none; download the file again")
    weights: dict[str, Tensor] = {}
    for name, value in found.items():
        if not isinstance(name, str) or len(name) > _MAX_NAME_LENGTH or not isinstance(value, PendingTensor):
            raise DamagedModelError("expected weights that are tensors with names, found something else")
        max_bytes -= value.value_bytes
        if max_bytes < 0:
            raise DamagedModelError("expected weights that fit the file's length, found more")
        weights[name] = value.to_tensor()
        if weights[name].is_floating_point() and not bool(torch.isfinite(weights[name]).all()):
            raise DamagedModelError("expected finite weights, found NaN or infinity; train the model again")
    return weights


def read_sources(document: Mapping[Any, Any]) -> dict[str, str]:
    """Function name to source text, at most 32 of 256 K characters."""
    sources: dict[str, str] = {}
    for name, value in document.items():
        if not isinstance(name, str) or not _FUNCTION.fullmatch(name) or value is None:
            continue
        if not isinstance(value, str):
            raise UnsupportedModelError(f"expected the source text of {name}, found {type(value).__name__}")
        if len(value) > _MAX_SOURCE_LENGTH or len(sources) == _MAX_SOURCES:
            raise DamagedModelError(
                f"expected at most {_MAX_SOURCES} functions of {_MAX_SOURCE_LENGTH} characters, found more"
            )
        sources[name] = value
    return sources
