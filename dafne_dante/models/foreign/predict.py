"""Segments images with the code of a model that the site trusts, in a child process of its own for each image.

Terms: what a model may use is Limits; who may be run is `run_model_code`, the SHA-256 sums of the site's settings.

Invariants: consent is checked before anything is started; one child sees one image, so that nothing of a patient can
be kept for the next; what comes back is checked (answer.py).
"""

from collections.abc import Collection
from dataclasses import asdict

import numpy as np
import torch

from dafne_dante.models.foreign.answer import Masks, not_isolated, read_answer
from dafne_dante.models.foreign.consent import require_consent
from dafne_dante.models.foreign.frame import pack_frame
from dafne_dante.models.foreign.isolation import Limits, missing_isolation
from dafne_dante.models.foreign.model import ForeignModel
from dafne_dante.types import Image, SpacingMm

__all__ = ["predict_foreign"]


def predict_foreign(
    model: ForeignModel,
    image: Image,
    spacing_mm: SpacingMm,
    *,
    run_model_code: Collection[str],
    limits: Limits | None = None,
) -> Masks:
    """A mask (X, Y, Z) for each label that the model's own code finds in an image (C, X, Y, Z).

    Raises:
        UnsupportedModelError: the site does not trust the file, or the system cannot isolate a process.
        ForeignCodeError: the code failed, went beyond its limits, or answered with something else than masks.
    """
    require_consent(model.sha256, run_model_code)
    if missing := missing_isolation():
        raise not_isolated(missing)
    # Elsewhere than on Linux this module cannot be loaded, and is not needed.
    from dafne_dante.models.foreign.process import ask_child  # noqa: PLC0415

    limits = limits or Limits()
    return read_answer(ask_child(_request(model, image, spacing_mm, limits), limits), image.shape[1:])


def _request(model: ForeignModel, image: Image, spacing_mm: SpacingMm, limits: Limits) -> bytes:
    message = {
        "limits": asdict(limits),
        "spacing_mm": [float(size) for size in spacing_mm],
        "dimensions": model.dimensions,
        "sources": dict(model.sources),
        "weights": [list(part) for part in model.weights],
        "entries": {
            "model_id": str(model.model_id),
            "timestamp_id": model.timestamp,
            "type": model.kind,
            "is_delta": False,
            "data_dimensionality": model.dimensions,
            "metadata": model.metadata,
        },
    }
    tensors = {f"{number}/{name}": one for number, part in enumerate(model.weights) for name, one in part.items()}
    return pack_frame(message, {**tensors, "image": torch.from_numpy(np.array(image, np.float32, order="C"))})
