"""A new model from a site's cases, on one page: collect, plan, train (or go on), measure, write.

Invariants
- A run that is resumed has the weights of one that was never interrupted: same cases, same choices, same seed, on a
  CPU. Whatever differs is refused, and nothing is deleted then.
- What was begun is in the output folder until it is done (see `unfinished`); the folds are resumed as well.
- Where several processes train (see `training.processes`), the first alone plans and touches the output folder, and all
  must have found the same cases.
- With folds, every study is held out once, and the model that is written has learnt from all cases, for as many
  epochs as the folds needed on average; nothing is held out from it, so its figures are those of the folds.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.collect import Collection
from dafne_dante.annotations.holdout import hold_out
from dafne_dante.config import Settings
from dafne_dante.durable import write_atomically
from dafne_dante.errors import SettingsError, TrainingError
from dafne_dante.models.configure import ArchitectureChoice, configure_cases
from dafne_dante.models.file import write_model
from dafne_dante.models.plan import plan_from_net_metadata, plan_to_net_metadata
from dafne_dante.models.planning.budget import MemoryBudget
from dafne_dante.plugin.collecting import CaseRequest, collect_cases
from dafne_dante.plugin.planning import training_budget
from dafne_dante.plugin.preparing import cache_for
from dafne_dante.plugin.results import results_folder
from dafne_dante.plugin.unfinished import (
    CHECKPOINT,
    Planned,
    clear,
    digest_cases,
    fold_checkpoint,
    has_checkpoint,
    keep_plan,
    kept_plan,
    removed_if_nothing_was_learnt,
)
from dafne_dante.training.curve import draw_learning_curve
from dafne_dante.training.defaults import FROM_SCRATCH
from dafne_dante.training.folds import FoldScores, cross_validate
from dafne_dante.training.history import EpochRecord, write_history
from dafne_dante.training.processes import ALONE, Processes
from dafne_dante.training.scratch import ScratchWish, TrainedModel, train_on

__all__ = ["TrainingOutcome", "TrainingProgress", "TrainingRequest", "train"]

_AUGMENTATION = replace(FROM_SCRATCH, scanner=0.5, spatial=0.5, mirror=True)
_HELD_OUT_SHARE = 0.15
"""Less than where a global model is tuned: what decides here is how many cases there are to learn from (of six brains,
2D, two held out: Dice 0.885; one: 0.894)."""


@dataclass(frozen=True)
class TrainingRequest:
    """What to train, from what, and where to.

    Attributes:
        data: which labelled studies.
        out: folder for model.model, history.csv and learning_curve.png, and folds.json with folds.
        architecture, memory_gb: see `planning.PlanRequest`.
        epochs: None for the default.
        patience: epochs without a better one after which training stops; 0 for never.
        folds: how many models are trained to measure this way of training; 0 for none.
        resume: go on from the checkpoints in `out`, if there are any.
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


def train(
    request: TrainingRequest,
    settings: Settings,
    progress: TrainingProgress | None = None,
    processes: Processes = ALONE,
) -> TrainingOutcome:
    """Train a new model; files and meanings in TrainingRequest.

    Args:
        processes: those that share this training, each with the same request.

    Raises:
        SettingsError: an interrupted training lies in the output folder, and nobody said whether to go on.
        NotEnoughCasesError: fewer than two studies, or fewer than folds.
        TrainingError: the checkpoint is of another training, or the budget too small; or the processes differ.
        DanteError: any other; the branch says who must act.
    """
    progress = progress or TrainingProgress()
    learnt = has_checkpoint(request.out)
    if learnt and not request.resume:
        raise SettingsError(
            "expected a folder without an interrupted training, found its checkpoint; go on with --resume, or remove it"
        )
    if request.resume and not learnt:
        progress.stage("no checkpoint to go on from; training begins")
    # The other processes write nothing, and leave what lies in the output folder.
    with results_folder(request.out) if processes.is_first else nullcontext() as folder:
        collection = collect_cases(request.data, settings, say=progress.stage)
        progress.collected(collection)
        cases = collection.cases
        with removed_if_nothing_was_learnt(request.out) if processes.is_first else nullcontext():
            planned = _plan(request, cases, progress, processes)
            trained, folds = _train(request, settings, cases, planned, progress, processes=processes)
            if folder is not None:
                _write(folder, trained, folds, progress)
    if processes.is_first:
        clear(request.out)
    return TrainingOutcome(trained, planned.why, folds, len(cases))


def _plan(request: TrainingRequest, cases: Sequence[Case], progress: TrainingProgress, processes: Processes) -> Planned:
    """The first process's plan, in all of them; TrainingError in those that found other cases or options."""
    choices = {
        "cases": digest_cases(cases),
        "architecture": request.architecture,
        "memory-gb": request.memory_gb,
        "epochs": request.epochs,
        "seed": request.seed,
        "patience": request.patience,
        "folds": request.folds,
    }

    def document() -> dict[str, Any]:
        planned = _kept_or_new(request, cases, choices, progress, processes=processes)
        network = plan_to_net_metadata(planned.plan)
        return {"choices": choices, "net": network, "batch_size": planned.batch_size, "why": planned.why}

    agreed = processes.from_first(document)
    other = [name for name, value in choices.items() if agreed["choices"][name] != value]
    if other:
        raise TrainingError(
            f"expected the cases and options of the first process in every process, found other {', '.join(other)} "
            f"in process {processes.rank}; give all the same"
        )
    return Planned(plan_from_net_metadata(agreed["net"]), agreed["batch_size"], agreed["why"])


def _kept_or_new(
    request: TrainingRequest,
    cases: Sequence[Case],
    choices: dict[str, Any],
    progress: TrainingProgress,
    *,
    processes: Processes,
) -> Planned:
    """The plan of an interrupted training that is resumed; else a new one, which is kept beside the checkpoint."""
    kept = kept_plan(request.out, choices) if request.resume else None
    if kept is not None:
        return kept
    configuration = configure_cases(cases, request.architecture, budget=_budget(request, processes))
    batch_size, why = configuration.batch_size, dict(configuration.why)
    if processes.count > 1:
        batch_size = -(-batch_size // processes.count) * processes.count
        why["processes"] = f"{processes.count} processes share each batch, which has {batch_size} patches for that"
    for sentence in why.values():
        progress.stage(sentence)
    return keep_plan(request.out, Planned(configuration.plan, batch_size, why), choices)


def _budget(request: TrainingRequest, processes: Processes) -> MemoryBudget:
    """For one process; what is free on a machine without GPUs is for all of them there."""
    budget = training_budget(request.memory_gb)
    if request.memory_gb is not None or budget.on_gpu or processes.neighbours == 1:
        return budget
    why = f"{budget.why}, for {processes.neighbours} processes"
    return replace(budget, size_bytes=budget.size_bytes // processes.neighbours, why=why)


def _train(
    request: TrainingRequest,
    settings: Settings,
    cases: Sequence[Case],
    planned: Planned,
    progress: TrainingProgress,
    *,
    processes: Processes,
) -> tuple[TrainedModel, FoldScores | None]:
    wish = ScratchWish(
        settings.folder, request.epochs, request.seed, _AUGMENTATION, request.patience, progress.epoch,
        prepare=cache_for(request.data, settings, say=progress.stage, processes=processes.neighbours).prepare,
    )  # fmt: skip
    folds = _measure_folds(request, cases, planned, wish, progress, processes=processes) if request.folds else None
    if folds is None:
        training, held_out = hold_out(cases, share=_HELD_OUT_SHARE, seed=request.seed)
        wish = replace(wish, last_stretch=True)
    else:
        training, held_out = list(cases), []
        wish = replace(wish, epochs=max(1, round(sum(folds.best_epochs) / len(folds.best_epochs))), patience=0)
        progress.stage(f"training on all {len(cases)} cases for {wish.epochs} epochs")
    checkpoint = request.out / CHECKPOINT
    trained = train_on(
        planned.plan, planned.batch_size, training, held_out, wish, checkpoint=checkpoint, processes=processes
    )
    return trained, folds


def _measure_folds(
    request: TrainingRequest,
    cases: Sequence[Case],
    planned: Planned,
    wish: ScratchWish,
    progress: TrainingProgress,
    *,
    processes: Processes,
) -> FoldScores:
    def one(number: int, training: Sequence[Case], held_out: Sequence[Case]) -> TrainedModel:
        progress.stage(f"fold {number} of {request.folds}: {len(training)} cases to learn from")
        checkpoint = fold_checkpoint(request.out, number)
        return train_on(
            planned.plan, planned.batch_size, training, held_out, wish, checkpoint=checkpoint, processes=processes
        )

    return cross_validate(cases, request.folds, one, seed=request.seed)


def _write(folder: Path, trained: TrainedModel, folds: FoldScores | None, progress: TrainingProgress) -> None:
    labels = trained.model.plan.labels
    write_model(trained.model, folder / "model.model")
    write_history(folder / "history.csv", trained.result.history, labels)
    if folds is not None:
        write_atomically(folder / "folds.json", (json.dumps(asdict(folds), indent=1) + "\n").encode())
    try:
        draw_learning_curve(folder / "learning_curve.png", trained.result.history, labels, trained.result.best_epoch)
    except SettingsError as error:
        progress.stage(str(error))
