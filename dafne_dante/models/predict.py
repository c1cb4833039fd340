"""Predictions in the image's own grid, by the route that stock clients take: sliding window, overlap 0.25, argmax.

Windows of a volume, and slices of one size, go through the network several at once.

Invariants: the network is put into evaluation mode and left in the mode it had; no gradient is recorded; logits are
compared in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from dafne_dante.errors import IncompatibleModelError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.preprocess import PreparedImage, Record, pad_for_network, prepare_image, restore_segmentation
from dafne_dante.types import Image, Segmentation, SpacingMm

__all__ = ["check_channels", "evaluating", "predict_logits", "predict_segmentation"]

_OVERLAP = 0.25
_WINDOWS_AT_ONCE = 4
_PIXELS_AT_ONCE = {"cpu": 1 << 15, "cuda": 1 << 21}
"""Of slices that go through a 2D network together; a CPU's cache holds one of 256 x 256, more makes it no quicker."""


def predict_segmentation(network: nn.Module, plan: ModelPlan, image: Image, spacing_mm: SpacingMm) -> Segmentation:
    """Labels (X, Y, Z) uint8 for an image (C, X, Y, Z); IncompatibleModelError for another number of contrasts."""
    check_channels(plan, image.shape[0])
    if plan.dimensions == 2:
        return _predict_slices(network, plan, image, spacing_mm)
    prepared = prepare_image(image, spacing_mm, plan)
    labels = predict_logits(network, plan, prepared).argmax(dim=0).to(torch.uint8).cpu().numpy()
    return restore_segmentation(labels, prepared.record)


def predict_logits(network: nn.Module, plan: ModelPlan, prepared: PreparedImage) -> Tensor:
    """Logits (classes, Z, X, Y), or (classes, X, Y) of one slice, float32, on the prepared image's grid."""
    padded, inner = pad_for_network(prepared.image, plan)
    device = next(network.parameters()).device
    batch = torch.from_numpy(padded)[None].to(device)
    with evaluating(network), torch.inference_mode():
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


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, then back to each module's own mode (a frozen part may differ from the rest)."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _predict_slices(network: nn.Module, plan: ModelPlan, image: Image, spacing_mm: SpacingMm) -> Segmentation:
    """Each slice on its own, as many at once as have one size and fit; the order of (Z,) is that of the image."""
    labels = np.zeros(image.shape[1:], dtype=np.uint8)
    waiting: dict[tuple[int, ...], list[_Slice]] = {}
    at_once = _PIXELS_AT_ONCE.get(next(network.parameters()).device.type, 1 << 15)
    for index in range(image.shape[-1]):
        prepared = prepare_image(image[..., index], spacing_mm, plan)
        padded, inner = pad_for_network(prepared.image, plan)
        batch = waiting.setdefault(padded.shape, [])
        batch.append(_Slice(index, padded, inner, prepared.record))
        if len(batch) * padded[0].size >= at_once:
            _predict_batch(network, waiting.pop(padded.shape), labels)
    for batch in waiting.values():
        _predict_batch(network, batch, labels)
    return labels


@dataclass(frozen=True, eq=False)
class _Slice:
    """One prepared slice: its index, the padded image (C, X, Y), where in it the slice lies, and the way back."""

    index: int
    padded: npt.NDArray[np.float32]
    inner: tuple[slice, ...]
    record: Record


def _predict_batch(network: nn.Module, batch: list[_Slice], labels: Segmentation) -> None:
    """Fill in the slices of `labels` (X, Y, Z)."""
    device = next(network.parameters()).device
    with evaluating(network), torch.inference_mode():
        found = network(torch.from_numpy(np.stack([one.padded for one in batch])).to(device)).float()
        classes = found.argmax(dim=1).to(torch.uint8).cpu().numpy()
    for one, predicted in zip(batch, classes, strict=True):
        labels[..., one.index] = restore_segmentation(predicted[one.inner], one.record)
