"""A new model family from nothing but labelled cases."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import uuid4

import torch

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.annotations.case import Case
from dafne_dante.annotations.holdout import hold_out
from dafne_dante.models.build import build_network
from dafne_dante.models.configure import configure_unet3d
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.stock_functions import stock_metadata, stock_sources
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.defaults import FROM_SCRATCH, recipe_from_scratch
from dafne_dante.training.evaluate import Scores, measure_cases
from dafne_dante.training.hardware import Numerics, choose_device, remembered_numerics
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.last_stretch import Stretch, run_last_stretch, split_recipe, stretch_checkpoint
from dafne_dante.training.loop import FitResult, fit
from dafne_dante.training.prepared import Prepare, prepare_cases
from dafne_dante.training.processes import ALONE, Processes

__all__ = ["ScratchWish", "TrainedModel", "train_from_scratch", "train_on"]

_BATCH_SIZE = 2
_UNUSED: dict[str, float | None] = {}


@dataclass(frozen=True)
class ScratchWish:
    """How somebody wants to train.

    Attributes:
        cache: a folder that remembers which numerics are fastest here.
        epochs: None for the default.
        augmentation: how strongly batches are changed.
        patience: epochs without a better one after which training stops; 0 for never.
        on_epoch: is told every finished epoch, and of how many.
        prepare: prepares cases, or remembers them.
        last_stretch: whether a training with few studies ends on all of them, see `last_stretch`.
    """

    cache: Path
    epochs: int | None = None
    seed: int = 0
    augmentation: Strengths = field(default=FROM_SCRATCH)
    patience: int = 0
    on_epoch: Callable[[EpochRecord, int], None] = field(default=lambda record, epochs: None, compare=False)
    prepare: Prepare = field(default=prepare_cases, compare=False)
    last_stretch: bool = False


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A new model, the rows of its training, and how well it does on the held-out cases, in their own grid.

    `scores` is None where nothing was held out. They are of the network before its last stretch of so many epochs, in
    which it learnt from the held-out cases as well.
    """

    model: GlobalModel
    result: FitResult
    scores: Scores | None
    last_stretch: int = 0

    @property
    def dice(self) -> dict[str, float | None]:
        """Dice on the held-out cases, by label and "mean"; empty where nothing was held out."""
        return dict(self.scores.dice if self.scores else _UNUSED)


def train_from_scratch(cases: Sequence[Case], wish: ScratchWish) -> TrainedModel:
    """Configure and train a 3D U-Net; a quarter of the cases, at least one, is held out to choose the best epoch.

    Raises:
        NotEnoughCasesError: fewer than two cases.
        AnnotationError, TrainingError: see configure_unet3d and fit.
    """
    training, held_out = hold_out(cases, seed=wish.seed)
    plan = configure_unet3d(cases, on_gpu=choose_device().type == "cuda")
    return train_on(plan, _BATCH_SIZE, training, held_out, wish)


def train_on(
    plan: ModelPlan,
    batch_size: int,
    training: Sequence[Case],
    held_out: Sequence[Case],
    wish: ScratchWish,
    *,
    checkpoint: Path | None = None,
    processes: Processes = ALONE,
) -> TrainedModel:
    """Train a network of this plan; without held-out cases the lowest training loss decides which epoch remains.

    Args:
        batch_size: patches in a step, of all processes together.
        checkpoint, processes: see `loop.fit`.

    Raises:
        AnnotationError, TrainingError, StorageError: see fit.
    """
    torch.manual_seed(wish.seed)
    network = build_network(plan).to(processes.device)
    part = processes.part(batch_size)
    # Measured once: all compute alike, and one file remembers.
    numerics = processes.from_first(
        lambda: asdict(remembered_numerics(network, plan, batch_size=part.stop - part.start, folder=wish.cache))
    )
    prepared, unseen = wish.prepare(training, plan), wish.prepare(held_out, plan)
    whole = recipe_from_scratch(
        epochs=wish.epochs,
        seed=wish.seed,
        numerics=Numerics(**numerics),
        batch_size=batch_size,
        samples=len(prepared),
        dimensions=plan.dimensions,
        augmentation=wish.augmentation,
        patience=wish.patience,
        deep_supervision=plan.architecture == "dynunet",
    )
    recipe, last = whole, None
    if wish.last_stretch:
        studies = {case.case_id for case in (*training, *held_out)}
        recipe, last = split_recipe(whole, studies=len(studies), held_out=len(held_out))
    method = FullFineTuning()

    def tell(record: EpochRecord) -> None:
        wish.on_epoch(record, whole.epochs)

    result = fit(
        network,
        plan,
        method,
        prepared,
        unseen,
        recipe=recipe,
        on_epoch=tell,
        checkpoint=checkpoint,
        processes=processes,
    )
    scores = measure_cases(network, plan, held_out, processes=processes) if held_out else None
    if last is not None:
        result = run_last_stretch(
            Stretch(network, plan, method, prepared, unseen, result),
            last,
            on_epoch=tell,
            checkpoint=stretch_checkpoint(checkpoint) if checkpoint is not None else None,
            processes=processes,
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
    return TrainedModel(model, result, scores, last_stretch=last.epochs if last else 0)
