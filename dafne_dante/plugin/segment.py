"""Models of either kind, built by us or by code of their own that the site trusts: segmenting and measuring."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.models.build import build_network
from dafne_dante.models.foreign.answer import Masks
from dafne_dante.models.foreign.loading import read_any_model
from dafne_dante.models.foreign.model import ForeignModel
from dafne_dante.models.foreign.predict import predict_foreign
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.predict import predict_segmentation
from dafne_dante.training.evaluate import measure_cases
from dafne_dante.training.evaluate_foreign import evaluate_foreign
from dafne_dante.training.hardware import choose_device
from dafne_dante.types import Image, Segmentation, SpacingMm

__all__ = ["measure_model", "segment_with_file"]


def segment_with_file(
    path: Path, image: Image, spacing_mm: SpacingMm, *, run_model_code: Collection[str]
) -> tuple[Segmentation, tuple[str, ...]]:
    """Labels (X, Y, Z) uint8 for an image (C, X, Y, Z), and the label that each value from 1 stands for.

    Where masks of a model with code of its own overlap, the later one counts. ModelError as read_any_model,
    predict_segmentation and predict_foreign.
    """
    model = read_any_model(path, run_model_code=run_model_code)
    if isinstance(model, ForeignModel):
        masks = predict_foreign(model, image, spacing_mm, run_model_code=run_model_code)
        return _painted(masks, image.shape[1:]), tuple(masks)
    network = build_network(model.plan, model.weights).to(choose_device())
    return predict_segmentation(network, model.plan, image, spacing_mm), model.plan.labels


def measure_model(
    model: GlobalModel | ForeignModel, cases: Sequence[Case], *, run_model_code: Collection[str]
) -> dict[str, Any]:
    """The scores of training.evaluate.Scores by name; of a ForeignModel only Dice. Errors as those functions'."""
    if isinstance(model, ForeignModel):
        return {"dice": evaluate_foreign(model, cases, run_model_code=run_model_code)}
    network = build_network(model.plan, model.weights).to(choose_device())
    return asdict(measure_cases(network, model.plan, cases))


def _painted(masks: Masks, shape: tuple[int, ...]) -> Segmentation:
    segmentation = np.zeros(shape, dtype=np.uint8)
    for value, mask in enumerate(masks.values(), start=1):
        segmentation[mask] = value
    return segmentation
