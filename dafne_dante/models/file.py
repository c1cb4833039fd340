"""Dafne's `.model` files: GlobalModel <-> bytes, without ever running what a file says.

Terms: a file is one pickled dictionary (DAFNE.md section 1): model_id, weights, timestamp_id, is_delta,
data_dimensionality, type, metadata and the source texts of the functions that stock clients run.

Invariants: reading imports and runs nothing (pickle_reader.py) and keeps plain values only; weights are finite,
contiguous and own their memory, with the dtype of the file; a file is written whole or not at all, and the same model
always gives the same bytes; what stock incremental learning adds (ewc_data, three times the weights) is forgotten, as
are paths of the maker's disk.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from dafne_dante.durable import read_bounded, write_stream_atomically
from dafne_dante.errors import UnsupportedModelError
from dafne_dante.models.document import (
    read_document,
    read_metadata,
    read_model_id,
    read_sources,
    read_timestamp,
    read_weights,
)
from dafne_dante.models.foreign.consent import FOREIGN_TYPES, code_advice
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.pickle_writer import ByCall, ByGlobal, Chunks, Write, write_pickle
from dafne_dante.models.plain_values import without_paths
from dafne_dante.models.plan import ModelPlan, plan_from_net_metadata, plan_to_net_metadata
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
_FUNCTION_ORDER = (
    "init_model_function", "apply_model_function", "weights_to_model_function", "model_to_weights_function",
    "calc_delta_function", "apply_delta_function", "weight_copy_function", "factor_multiply_function",
    "incremental_learn_function",
)  # fmt: skip


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
    document = read_document(content)
    _refuse_other_types(document, content)
    metadata = read_metadata(document)
    plan = _plan(metadata.pop("net_metadata", None), document, content)
    if isinstance(metadata.get("train_metadata"), dict):
        metadata["train_metadata"] = without_paths(metadata["train_metadata"])
    return GlobalModel(
        model_id=read_model_id(document.get("model_id")),
        timestamp=read_timestamp(document.get("timestamp_id")),
        plan=plan,
        weights=read_weights(document.get("weights"), max_bytes=2 * len(content)),
        metadata=metadata,
        sources=read_sources(document),
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


def _refuse_other_types(document: Mapping[Any, Any], content: bytes) -> None:
    kind = document.get("type", "DynamicDLModel")  # Dafne's own default
    if kind != _TYPE:
        reason = _REFUSED_TYPES.get(kind) if isinstance(kind, str) else None
        name = kind if reason else "an unknown type"
        raise UnsupportedModelError(
            f"expected a {_TYPE}, found {name}; not supported, because it is {reason or 'not one that Dafne documents'}"
            + (code_advice(document, content) if kind in FOREIGN_TYPES else "")
        )
    if document.get("is_delta") not in (False, None):
        raise UnsupportedModelError("expected a whole model, found a difference of two models; use the whole model")


def _plan(net_metadata: Any, document: Mapping[Any, Any], content: bytes) -> ModelPlan:
    if not isinstance(net_metadata, dict):
        raise UnsupportedModelError(
            "expected metadata.net_metadata, which says how the network is built, found none"
            + code_advice(document, content)
        )
    plan = plan_from_net_metadata(net_metadata)
    return replace(plan, extra=without_paths(plan.extra))


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
