"""Predictions in the image's own grid, by the route that stock clients take: sliding window, overlap 0.25, argmax.

Invariants: the network is put into evaluation mode and left in the mode it had; no gradient is recorded; logits are
compared in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from dafne_dante.errors import IncompatibleModelError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.preprocess import PreparedImage, pad_for_network, prepare_image, restore_segmentation
from dafne_dante.types import Image, Segmentation, SpacingMm

__all__ = ["check_channels", "predict_logits", "predict_segmentation"]

_OVERLAP = 0.25
_WINDOWS_AT_ONCE = 4


def predict_segmentation(network: nn.Module, plan: ModelPlan, image: Image, spacing_mm: SpacingMm) -> Segmentation:
    """Labels (X, Y, Z) uint8 for an image (C, X, Y, Z); IncompatibleModelError for another number of contrasts."""
    check_channels(plan, image.shape[0])
    if plan.dimensions == 2:
        slices = [_predict_one(network, plan, image[..., index], spacing_mm) for index in range(image.shape[-1])]
        return np.stack(slices, axis=-1)
    return _predict_one(network, plan, image, spacing_mm)


def predict_logits(network: nn.Module, plan: ModelPlan, prepared: PreparedImage) -> Tensor:
    """Logits (classes, Z, X, Y), or (classes, X, Y) of one slice, float32, on the prepared image's grid."""
    padded, inner = pad_for_network(prepared.image, plan)
    device = next(network.parameters()).device
    batch = torch.from_numpy(padded)[None].to(device)
    with _evaluating(network), torch.inference_mode():
        if plan.dimensions == 2:
            logits = network(batch)
        else:
            logits = sliding_window_inference(
                batch, roi_size=plan.patch, sw_batch_size=_WINDOWS_AT_ONCE, predictor=network, overlap=_OVERLAP
            )
    window: Tensor = logits[0][(slice(None), *inner)].float()
    return window


def check_channels(plan: ModelPlan, channels: int) -> None:
    """IncompatibleModelError when an image has another number of contrasts than the model was made for."""
    if channels != plan.in_channels:
        raise IncompatibleModelError(
            f"expected images with {plan.in_channels} contrast(s), found {channels}; use the model with its own images"
        )


def _predict_one(network: nn.Module, plan: ModelPlan, image: Image, spacing_mm: SpacingMm) -> Segmentation:
    prepared = prepare_image(image, spacing_mm, plan)
    labels = predict_logits(network, plan, prepared).argmax(dim=0).to(torch.uint8).cpu().numpy()
    return restore_segmentation(labels, prepared.record)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, then back to each module's own mode (a frozen part may differ from the rest)."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
