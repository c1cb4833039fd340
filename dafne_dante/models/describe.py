"""What is in a model, in words and numbers that a person can check before the file leaves the house.

Invariants: JSON-able; names and digests instead of contents for whatever may be long (weights, sources, metadata).
"""

import hashlib
from typing import Any

from dafne_dante.models.global_model import GlobalModel, digest_weights

__all__ = ["describe_model"]


def describe_model(model: GlobalModel) -> dict[str, Any]:
    """The model's description, plain values only.

    `parameters` counts the values of all tensors, `weight_bytes` their bytes; `patch` and `spacing_mm` have the plan's
    order, (Z, X, Y) or (X, Y); `functions` gives the SHA-256 and the number of lines of each source text.
    """
    plan = model.plan
    return {
        "kind": "model",
        "model_id": str(model.model_id),
        "timestamp": model.timestamp,
        "architecture": plan.architecture,
        "labels": list(plan.labels),
        "dimensions": plan.dimensions,
        "patch": list(plan.patch),
        "spacing_mm": list(plan.spacing_mm),
        "parameters": sum(tensor.numel() for tensor in model.weights.values()),
        "tensors": len(model.weights),
        "weight_bytes": sum(tensor.numel() * tensor.element_size() for tensor in model.weights.values()),
        "weights_sha256": digest_weights(model.weights),
        "functions": {name: _describe_source(model.sources[name]) for name in sorted(model.sources)},
        "metadata_keys": sorted(str(key) for key in model.metadata),
    }


def _describe_source(text: str) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(), "lines": len(text.splitlines())}
