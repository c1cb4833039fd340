"""Dafne's `.model` files: GlobalModel <-> bytes, without ever running what a file says.

Terms: a file is one pickled dictionary (DAFNE.md section 1): model_id, weights, timestamp_id, is_delta,
data_dimensionality, type, metadata and the source texts of the functions that stock clients run.

Invariants: reading imports and runs nothing (pickle_reader.py) and keeps plain values only; weights are finite,
contiguous and own their memory, with the dtype of the file; a file is written whole or not at all, and the same model
always gives the same bytes; what stock incremental learning adds (ewc_data, three times the weights) is forgotten, as
are paths of the maker's disk.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from dafne_dante.durable import read_bounded, write_stream_atomically
from dafne_dante.errors import DamagedModelError, UnsupportedModelError
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.pickle_reader import Budget, read_pickle
from dafne_dante.models.pickle_writer import ByCall, ByGlobal, Chunks, Write, write_pickle
from dafne_dante.models.plain_values import keep_plain, without_paths
from dafne_dante.models.plan import ModelPlan, plan_from_net_metadata, plan_to_net_metadata
from dafne_dante.models.reconstruct import PendingTensor, PendingUuid, model_vocabulary
from dafne_dante.models.torch_stream import storage_header

__all__ = ["MAX_BYTES", "parse_model", "read_model", "serialise_model", "write_model"]

MAX_BYTES = 2 * 1024**3
_TYPE = "DynamicTorchModel"
_REFUSED_TYPES = {
    "DynamicDLModel": "a Keras network, whose layers exist only as code that would have to be run",
    "DynamicEnsembleModel": "several models in one, which share no single set of weights",
    "DynamicTorchFLAREModel": "a network that only its own code can build",
    "DynamicDummyModel": "a program without weights",
}
_FUNCTION = re.compile(r"[a-z_]{1,64}_function")
_FUNCTION_ORDER = (
    "init_model_function", "apply_model_function", "weights_to_model_function", "model_to_weights_function",
    "calc_delta_function", "apply_delta_function", "weight_copy_function", "factor_multiply_function",
    "incremental_learn_function",
)  # fmt: skip
_MAX_SOURCES = 32
_MAX_SOURCE_LENGTH = 256 * 1024
_MAX_NAME_LENGTH = 512


def read_model(path: Path, *, max_bytes: int = MAX_BYTES) -> GlobalModel:
    """Read a `.model` file; errors as parse_model, and StorageError when it is missing or longer than `max_bytes`."""
    return parse_model(read_bounded(path, max_bytes=max_bytes))


def parse_model(content: bytes) -> GlobalModel:
    """Read a model from the bytes of a `.model` file.

    Raises:
        UnsafeModelError: the file names something that would run code; the message says what.
        UnsupportedModelError: a readable file of another type, a difference of models, or one without a plan.
        DamagedModelError: truncated, not a pickle, or weights that are not finite tensors.
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
    _refuse_other_types(document)
    metadata = keep_plain({k: None if k == "ewc_data" else v for k, v in _metadata(document).items()})
    plan = _plan(metadata.pop("net_metadata", None))
    if isinstance(metadata.get("train_metadata"), dict):
        metadata["train_metadata"] = without_paths(metadata["train_metadata"])
    return GlobalModel(
        model_id=_model_id(document.get("model_id")),
        timestamp=_timestamp(document.get("timestamp_id")),
        plan=plan,
        weights=_weights(document.get("weights"), max_bytes=2 * len(content)),
        metadata=metadata,
        sources=_sources(document),
    )


def write_model(model: GlobalModel, path: Path) -> None:
    """Write the model as a `.model` file, whole or not at all; errors as serialise_model, and StorageError."""
    document = _document(model)
    write_stream_atomically(path, lambda stream: write_pickle(document, stream.write))


def serialise_model(model: GlobalModel) -> bytes:
    """The model as the bytes of a `.model` file that stock Dafne loads; the same model gives the same bytes.

    Raises:
        UnsupportedModelError: weights of complex numbers, or metadata that is not plain values.
    """
    parts: list[bytes | memoryview] = []
    write: Write = parts.append
    write_pickle(_document(model), write)
    return b"".join(parts)


def _refuse_other_types(document: Mapping[Any, Any]) -> None:
    kind = document.get("type", "DynamicDLModel")  # Dafne's own default
    if kind != _TYPE:
        reason = _REFUSED_TYPES.get(kind) if isinstance(kind, str) else None
        name = kind if reason else "an unknown type"
        raise UnsupportedModelError(
            f"expected a {_TYPE}, found {name}; not supported, because it is {reason or 'not one that Dafne documents'}"
        )
    if document.get("is_delta") not in (False, None):
        raise UnsupportedModelError("expected a whole model, found a difference of two models; use the whole model")


def _metadata(document: Mapping[Any, Any]) -> dict[Any, Any]:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        raise UnsupportedModelError("expected metadata with a plan of the network, found none; train the model again")
    return metadata


def _plan(net_metadata: Any) -> ModelPlan:
    if not isinstance(net_metadata, dict):
        raise UnsupportedModelError(
            "expected metadata.net_metadata, which says how the network is built, found none; "
            "models without it can only be built by running their code"
        )
    plan = plan_from_net_metadata(net_metadata)
    return replace(plan, extra=without_paths(plan.extra))


def _model_id(value: Any) -> UUID:
    if not isinstance(value, PendingUuid) or value.value is None:
        raise DamagedModelError("expected model_id as a UUID, found something else; download the file again")
    return value.value


def _timestamp(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise DamagedModelError("expected timestamp_id as seconds since 1970, found something else")
    return value


def _weights(found: Any, *, max_bytes: int) -> dict[str, Tensor]:
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


def _sources(document: Mapping[Any, Any]) -> dict[str, str]:
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


def _document(model: GlobalModel) -> dict[str, Any]:
    """The file's dictionary in Dafne's own order."""
    known = [name for name in _FUNCTION_ORDER if name in model.sources]
    others = sorted(model.sources.keys() - set(known))
    return {
        "model_id": UUID(int=model.model_id.int),
        "weights": OrderedDict((str(name), _stored(tensor)) for name, tensor in model.weights.items()),
        "timestamp_id": int(model.timestamp),
        "is_delta": False,
        "data_dimensionality": model.plan.dimensions,
        "type": _TYPE,
        "metadata": {"net_metadata": plan_to_net_metadata(model.plan), **model.metadata},
        **{name: model.sources[name] for name in (*known, *others)},
    }


def _stored(tensor: Tensor) -> ByCall:
    """A tensor as torch pickles it: a call of _rebuild_tensor_v2 over a storage of exactly its values."""
    values = tensor.detach().cpu().contiguous()
    raw = values.reshape(-1).view(torch.uint8).numpy().data if values.numel() else b""
    stream = Chunks((storage_header(values.dtype, values.numel()), raw))
    storage = ByCall(ByGlobal("torch.storage", "_load_from_bytes"), (stream,))
    rebuild = ByGlobal("torch._utils", "_rebuild_tensor_v2")
    return ByCall(rebuild, (storage, 0, tuple(values.shape), tuple(values.stride()), False, OrderedDict()))
