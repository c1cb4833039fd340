"""GlobalModel: one version of a model family, as data.

Invariants: function sources are text that we carry and never run; weights are contiguous tensors on the CPU;
`model_id` names the family and never changes when a model is tuned or merged.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from dafne_dante.models.plan import ModelPlan

__all__ = ["GlobalModel", "digest_weights"]


@dataclass(frozen=True, eq=False)
class GlobalModel:
    """One version of a model family.

    Attributes:
        model_id: the family; merging needs it equal.
        timestamp: seconds since 1970 as written in the file; the server's version number may differ.
        plan: how the network is built and its images are prepared.
        weights: state-dict name (as in Dafne, for example `unet_model.model.0.conv.unit0.conv.weight`) to tensor.
        metadata: the file's metadata without net_metadata, plain Python values only.
        sources: function name to source text, never run by us.
    """

    model_id: UUID
    timestamp: int
    plan: ModelPlan
    weights: Mapping[str, Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def digest_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over sorted name, dtype, shape and little-endian bytes; 64 hexadecimal digits (DESIGN.md, Delta)."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = "x".join(str(size) for size in tensor.shape)
        digest.update(f"{name}\0{dtype}\0{shape}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
