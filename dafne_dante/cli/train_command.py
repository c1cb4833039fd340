"""The command `train`: a new model from nothing but labelled cases."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.options import Data, Epochs, Json, MemoryGb, Out, Seed, Series, SkipFaulty
from dafne_dante.cli.output import epoch_bar, in_words, print_object, say, tell
from dafne_dante.cli.plan_command import architecture_named
from dafne_dante.config import load_settings

if TYPE_CHECKING:
    from dafne_dante.annotations.collect import Collection
    from dafne_dante.plugin.training import TrainingOutcome

__all__ = ["train"]


def train(
    out: Out,
    data: Data = None,
    architecture: Annotated[str, typer.Option(help="auto, unet2d, unet3d or dynunet.")] = "auto",
    memory_gb: MemoryGb = None,
    epochs: Epochs = None,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after so many epochs without a better one; 0 for never.")
    ] = 0,
    folds: Annotated[
        int,
        typer.Option(
            min=0, help="Measure by k-fold first: K models, each study held out once; the model then learns from all."
        ),
    ] = 0,
    seed: Seed = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the checkpoint in OUT, which is written after every epoch."),
    ] = False,
    series: Series = None,
    skip_faulty: SkipFaulty = False,
    as_json: Json = False,
) -> None:
    """Train a new model from labelled cases: OUT/model.model, OUT/history.csv and OUT/learning_curve.png."""
    from dafne_dante.plugin.collecting import CaseRequest, account
    from dafne_dante.plugin.training import TrainingProgress, TrainingRequest
    from dafne_dante.plugin.training import train as run
    from dafne_dante.training.processes import join_processes

    chosen = architecture_named(architecture)
    if memory_gb is not None and not memory_gb > 0:
        raise typer.BadParameter(f"expected more than 0, found {memory_gb:g}", param_hint="--memory-gb")
    if folds == 1:
        raise typer.BadParameter("expected 0, or at least 2", param_hint="--folds")
    request = TrainingRequest(
        CaseRequest(tuple(data or ()), series, skip_faulty),
        out,
        chosen,
        memory_gb,
        epochs,
        seed,
        patience,
        folds,
        resume,
    )
    collected: list[Collection] = []

    def collect(collection: "Collection") -> None:
        collected.append(collection)
        tell(collection)

    bar, move = epoch_bar("train")
    with join_processes() as processes:
        if not processes.is_first:
            run(request, load_settings(), processes=processes)
            return
        with bar:
            outcome = run(
                request,
                load_settings(),
                TrainingProgress(collect, say, lambda record, total: move(record.epoch, total, record.dice["mean"])),
                processes,
            )
    answer = {
        **_described(outcome), "model_bytes": (out / "model.model").stat().st_size, **account(collected[0])
    }  # fmt: skip
    print_object(answer, as_json=as_json, text=lambda: f"model.model: {_summary(outcome)}")


def _described(outcome: "TrainingOutcome") -> dict[str, Any]:
    trained, folds = outcome.trained, outcome.folds
    scores: Mapping[str, Any] = asdict(trained.scores) if trained.scores else {"dice": {}}
    return {
        **scores,
        "architecture": trained.model.plan.architecture,
        "why": outcome.why,
        "cases": outcome.cases,
        "epochs": len(trained.result.history),
        "best_epoch": trained.result.best_epoch,
        "last_stretch": trained.last_stretch,
        "model_id": str(trained.model.model_id),
        **({"folds": asdict(folds)} if folds else {}),
    }


def _summary(outcome: "TrainingOutcome") -> str:
    if outcome.folds is None:
        stretch = outcome.trained.last_stretch
        then = f", before the last {stretch} epochs on all cases" if stretch else ""
        return f"held-out Dice {in_words(outcome.trained.dice)}{then}"
    told = ", ".join(
        f"{name} {_number(mean)} \N{PLUS-MINUS SIGN} {_number(outcome.folds.spread[name])}"
        for name, mean in outcome.folds.mean.items()
    )
    return f"Dice over {len(outcome.folds.folds)} folds {told}; learnt from all cases"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
