"""A new model from a site's cases, on one page: collect, plan, train (or go on), measure, write.

Terms
- A *checkpoint* is `training.checkpoint` in the output folder, written after every epoch; `training.json` beside it
  says which network was planned. Both are there while training is not done, survive whatever ends the process, and
  are removed with the last file of the results.

Invariants
- A run that is resumed has the weights of one that was never interrupted: same cases, same choices, same seed, on a
  CPU. Whatever differs is refused, and nothing is deleted then.
- The plan is chosen once; memory that is free at another time changes nothing.
- With folds, every study is held out once, and the model that is written has learnt from all cases, for as many
  epochs as the folds needed on average; nothing is held out from it, so its figures are those of the folds.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.collect import Collection
from dafne_dante.annotations.holdout import hold_out
from dafne_dante.config import Settings
from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import SettingsError, TrainingError, UnsupportedModelError
from dafne_dante.models.configure import ArchitectureChoice, configure_cases
from dafne_dante.models.file import write_model
from dafne_dante.models.plan import ModelPlan, plan_from_net_metadata, plan_to_net_metadata
from dafne_dante.plugin.collecting import CaseRequest, collect_cases
from dafne_dante.plugin.planning import training_budget
from dafne_dante.plugin.results import results_folder
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.curve import draw_learning_curve
from dafne_dante.training.folds import FoldScores, cross_validate
from dafne_dante.training.history import EpochRecord, write_history
from dafne_dante.training.scratch import ScratchWish, TrainedModel, train_on

__all__ = ["CHECKPOINT", "TrainingOutcome", "TrainingProgress", "TrainingRequest", "train"]

CHECKPOINT = "training.checkpoint"
_PLAN = "training.json"
_MAX_PLAN_BYTES = 1 << 20
_AUGMENTATION = Strengths(1.0, 0.5, 0.5, mirror=True)


@dataclass(frozen=True)
class TrainingRequest:
    """What to train, from what, and where to.

    Attributes:
        data: which labelled studies.
        out: folder for model.model, history.csv and learning_curve.png.
        architecture, memory_gb: see `planning.PlanRequest`.
        epochs: None for the default.
        patience: epochs without a better one after which training stops; 0 for never.
        folds: how many models are trained to measure this way of training; 0 for none.
        resume: go on from the checkpoint in `out`, if there is one.
    """

    data: CaseRequest
    out: Path
    architecture: ArchitectureChoice = "auto"
    memory_gb: float | None = None
    epochs: int | None = None
    seed: int = 0
    patience: int = 0
    folds: int = 0
    resume: bool = False


@dataclass(frozen=True)
class TrainingProgress:
    """Where to tell what happens: what was taken and left, a stage in words, every finished epoch of how many."""

    collected: Callable[[Collection], None] = lambda collection: None
    stage: Callable[[str], None] = lambda text: None
    epoch: Callable[[EpochRecord, int], None] = lambda record, epochs: None


@dataclass(frozen=True, eq=False)
class TrainingOutcome:
    """The model that was written, why its network is as it is, and how the folds did, if there were any."""

    trained: TrainedModel
    why: dict[str, str]
    folds: FoldScores | None
    cases: int


@dataclass(frozen=True)
class _Planned:
    plan: ModelPlan
    batch_size: int
    why: dict[str, str] = field(default_factory=dict)


def train(request: TrainingRequest, settings: Settings, progress: TrainingProgress | None = None) -> TrainingOutcome:
    """Train a new model; files and meanings in TrainingRequest.

    Raises:
        SettingsError: an interrupted training lies in the output folder, and nobody said whether to go on.
        NotEnoughCasesError: fewer than two studies, or fewer than folds.
        TrainingError: the checkpoint is of another training, or the budget too small.
        DanteError: any other; the branch says who must act.
    """
    progress = progress or TrainingProgress()
    checkpoint = request.out / CHECKPOINT
    if checkpoint.exists() and not request.resume:
        raise SettingsError(
            f"expected a folder without an interrupted training, found {CHECKPOINT}; go on with --resume, or remove it"
        )
    if request.resume and not checkpoint.exists():
        progress.stage("no checkpoint to go on from; training begins")
    with results_folder(request.out) as folder:
        collection = collect_cases(request.data, settings, say=progress.stage)
        progress.collected(collection)
        cases = collection.cases
        with _planned(request, cases, progress) as planned:
            trained, folds = _train(request, settings, cases, planned, progress)
            _write(folder, trained, progress)
    for name in (CHECKPOINT, _PLAN):
        (request.out / name).unlink(missing_ok=True)
    return TrainingOutcome(trained, planned.why, folds, len(cases))


def _train(
    request: TrainingRequest, settings: Settings, cases: Sequence[Case], planned: _Planned, progress: TrainingProgress
) -> tuple[TrainedModel, FoldScores | None]:
    wish = ScratchWish(settings.folder, request.epochs, request.seed, _AUGMENTATION, request.patience, progress.epoch)
    folds = _measure_folds(request, cases, planned, wish, progress) if request.folds else None
    if folds is None:
        training, held_out = hold_out(cases, seed=request.seed)
    else:
        training, held_out = list(cases), []
        wish = replace(wish, epochs=max(1, round(sum(folds.best_epochs) / len(folds.best_epochs))), patience=0)
        progress.stage(f"training on all {len(cases)} cases for {wish.epochs} epochs")
    checkpoint = request.out / CHECKPOINT
    return train_on(planned.plan, planned.batch_size, training, held_out, wish, checkpoint=checkpoint), folds


@contextmanager
def _planned(request: TrainingRequest, cases: Sequence[Case], progress: TrainingProgress) -> Iterator[_Planned]:
    """The plan, which stays on the disk as long as there is a checkpoint."""
    try:
        yield _plan(request, cases, progress)
    finally:
        if not (request.out / CHECKPOINT).exists():
            (request.out / _PLAN).unlink(missing_ok=True)


def _plan(request: TrainingRequest, cases: Sequence[Case], progress: TrainingProgress) -> _Planned:
    """The plan of an interrupted training that is resumed; else a new one, which is kept beside the checkpoint."""
    path = request.out / _PLAN
    if request.resume and (request.out / CHECKPOINT).exists():
        return _read_plan(path)
    budget = training_budget(request.memory_gb)
    configuration = configure_cases(cases, request.architecture, budget=budget)
    for sentence in configuration.why.values():
        progress.stage(sentence)
    document = {
        "net_metadata": plan_to_net_metadata(configuration.plan),
        "batch_size": configuration.batch_size,
        "why": dict(configuration.why),
    }
    make_folder(request.out)
    write_atomically(path, json.dumps(document).encode())
    return _read_plan(path)


def _read_plan(path: Path) -> _Planned:
    try:
        document = json.loads(read_bounded(path, max_bytes=_MAX_PLAN_BYTES))
        plan = plan_from_net_metadata(document["net_metadata"])
        why = {str(key): str(sentence) for key, sentence in document["why"].items()}
        return _Planned(plan, int(document["batch_size"]), why)
    except (ValueError, TypeError, KeyError, AttributeError, UnsupportedModelError) as error:
        raise TrainingError(
            f"expected the plan of the interrupted training in {path.name}, found a fault in it; start again without "
            f"--resume, after removing {CHECKPOINT}"
        ) from error


def _measure_folds(
    request: TrainingRequest, cases: Sequence[Case], planned: _Planned, wish: ScratchWish, progress: TrainingProgress
) -> FoldScores:
    def one(number: int, training: Sequence[Case], held_out: Sequence[Case]) -> TrainedModel:
        progress.stage(f"fold {number} of {request.folds}: {len(training)} cases to learn from")
        return train_on(planned.plan, planned.batch_size, training, held_out, wish)

    return cross_validate(cases, request.folds, one, seed=request.seed)


def _write(folder: Path, trained: TrainedModel, progress: TrainingProgress) -> None:
    labels = trained.model.plan.labels
    write_model(trained.model, folder / "model.model")
    write_history(folder / "history.csv", trained.result.history, labels)
    try:
        draw_learning_curve(folder / "learning_curve.png", trained.result.history, labels, trained.result.best_epoch)
    except SettingsError as error:
        progress.stage(str(error))
