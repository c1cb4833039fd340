"""A new model family from nothing but labelled cases."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.method import FullFineTuning
from dafne_dante.annotations.case import Case
from dafne_dante.annotations.holdout import hold_out
from dafne_dante.models.build import build_network
from dafne_dante.models.configure import configure_unet3d
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.stock_functions import stock_metadata, stock_sources
from dafne_dante.training.defaults import recipe_from_scratch
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device, remembered_numerics
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.loop import FitResult, fit
from dafne_dante.training.prepared import prepare_cases

__all__ = ["TrainedModel", "train_from_scratch"]


@dataclass(frozen=True)
class TrainedModel:
    """A new model, the rows of its training and its Dice on the held-out cases, in their own grid."""

    model: GlobalModel
    result: FitResult
    dice: dict[str, float | None]


def train_from_scratch(
    cases: Sequence[Case],
    *,
    epochs: int | None,
    seed: int,
    cache: Path,
    on_epoch: Callable[[EpochRecord, int], None] = lambda record, epochs: None,
) -> TrainedModel:
    """Configure and train a 3D U-Net; a quarter of the cases, at least one, is held out to choose the best epoch.

    `cache` is a folder that remembers which numerics are fastest here.

    Raises:
        NotEnoughCasesError: fewer than two cases.
        AnnotationError, TrainingError: see configure_unet3d and fit.
    """
    training, held_out = hold_out(cases, seed=seed)
    device = choose_device()
    plan = configure_unet3d(cases, on_gpu=device.type == "cuda")
    torch.manual_seed(seed)
    network = build_network(plan).to(device)
    recipe = recipe_from_scratch(
        epochs=epochs, seed=seed, numerics=remembered_numerics(network, plan, batch_size=2, folder=cache)
    )
    method = FullFineTuning()
    result = fit(
        network,
        plan,
        method,
        prepare_cases(training, plan),
        prepare_cases(held_out, plan),
        recipe=recipe,
        on_epoch=lambda record: on_epoch(record, recipe.epochs),
    )
    method.finish(network)
    model = GlobalModel(
        model_id=uuid4(),
        timestamp=int(time.time()),
        plan=plan,
        weights=plain_weights(network),
        metadata=stock_metadata(plan),
        sources=stock_sources(plan),
    )
    return TrainedModel(model, result, evaluate_cases(network, plan, held_out))
