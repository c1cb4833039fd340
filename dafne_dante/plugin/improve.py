"""The whole story of an improvement, on one page.

pull the global model -> collect the site's cases -> hold some out -> fine-tune -> take the delta -> measure it as it
would be sent -> quality gate -> sign -> write the files -> upload.

Invariants
- The improved model is the base plus the delta *as it would be sent*: what was measured is what leaves the house.
- The output folder gets all files of a run or none: until the last of them is written it is as it was, but for
  `improvement.checkpoint`, which is there from the first epoch until the run is done and survives whatever ends the
  process. A run that is resumed from it sends what an uninterrupted one would have sent; with another base, other cases
  or other choices it is refused, and nothing is deleted.
- Nothing is uploaded unless it was asked for, the gate passed, and the server's type says that it takes deltas; the
  files are there before, so that a failed upload loses nothing.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.method import method_named
from dafne_dante.adaptation.protocol import Method
from dafne_dante.annotations.case import Case
from dafne_dante.annotations.collect import Collection
from dafne_dante.annotations.holdout import hold_out
from dafne_dante.config import Settings
from dafne_dante.delta.difference import WeightUpdate, take_difference
from dafne_dante.delta.encode import DeltaFacts, encode_delta, updates_as_sent
from dafne_dante.delta.signing import ensure_signing_key
from dafne_dante.durable import write_atomically
from dafne_dante.errors import NotEnoughCasesError, SettingsError, StorageError, TransportError
from dafne_dante.federation.client import FederationClient
from dafne_dante.models.build import build_network, canonical_weights
from dafne_dante.models.file import write_model
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.plugin.apply import updated_model
from dafne_dante.plugin.base_model import BaseModel, base_from_file, base_from_server
from dafne_dante.plugin.collecting import CaseRequest, collect_cases
from dafne_dante.plugin.gate import GateDecision, decide_gate
from dafne_dante.plugin.results import results_folder
from dafne_dante.plugin.summary import ImprovementSummary, write_summary
from dafne_dante.training.defaults import recipe_for_adaptation
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device, remembered_numerics
from dafne_dante.training.history import EpochRecord, write_history
from dafne_dante.training.loop import FitResult, fit
from dafne_dante.training.prepared import prepare_cases

__all__ = ["ImprovementRequest", "Progress", "improve"]

_BATCH_SIZE = 2
_CHECKPOINT = "improvement.checkpoint"


@dataclass(frozen=True)
class ImprovementRequest:
    """What to improve, from what, and where to.

    Attributes:
        data: which labelled studies to use.
        out: folder for improved.model, update.delta, history.csv and summary.json (and base.model when pulled).
        base: a `.model` file; None pulls the newest version of `model_type` from the server.
        model_type: the type's name on the server; with a base file it only names the type in the delta.
        method: one of METHOD_NAMES.
        epochs: None for the default.
        upload: send the delta when the gate passes.
        resume: go on from the checkpoint in `out`, if there is one; else it is removed.
    """

    data: CaseRequest
    out: Path
    base: Path | None = None
    model_type: str = ""
    method: str = "lora"
    epochs: int | None = None
    seed: int = 0
    upload: bool = False
    resume: bool = False


@dataclass(frozen=True)
class Progress:
    """Where to tell what happens: what was taken and left, a stage in words, every finished epoch of how many."""

    collected: Callable[[Collection], None] = lambda collection: None
    stage: Callable[[str], None] = lambda text: None
    epoch: Callable[[EpochRecord, int], None] = lambda record, epochs: None


@dataclass(frozen=True, eq=False)
class _Cases:
    training: Sequence[Case]
    held_out: Sequence[Case]


@dataclass(frozen=True, eq=False)
class _Start:
    """What training begins with: the base, its network, the cases, and Dice on the held-out ones."""

    base: BaseModel
    network: nn.Module
    cases: _Cases
    before: Mapping[str, float | None]


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What training came to: the epochs, what moved, the model as a reader of the delta gets it, and its Dice."""

    result: FitResult
    updates: tuple[WeightUpdate, ...]
    improved: GlobalModel
    after: Mapping[str, float | None]
    decision: GateDecision


def improve(
    request: ImprovementRequest,
    settings: Settings,
    *,
    client: FederationClient | None = None,
    progress: Progress | None = None,
) -> ImprovementSummary:
    """Improve a global model from a folder of labelled cases; files and meanings in ImprovementRequest.

    Raises:
        TransportError: also when the upload fails; the files of the run are there then, and summary.json says that
            nothing was uploaded.
        DanteError: any other; no result was written then. The branch says who must act.
    """
    progress, begin = progress or Progress(), time.perf_counter()
    method = method_named(request.method)
    if request.upload and client is None:
        raise SettingsError("expected a federation server to upload to, found none; name it with --server")
    with results_folder(request.out) as folder:
        start = _prepare(request, settings, client, folder, progress)
        # Made before hours of training, so that a folder for keys that cannot be written is told now.
        signing_key = ensure_signing_key(settings.folder)
        if not request.resume:
            _remove_checkpoint(request)
        outcome = _fine_tune(start, method, request, settings, progress)
        progress.stage(outcome.decision.reason)
        content = encode_delta(outcome.updates, _facts(start, method, outcome), signing_key)
        summary = _summarise(start, method, outcome, len(content), time.perf_counter() - begin)
        write_model(outcome.improved, folder / "improved.model")
        write_atomically(folder / "update.delta", content)
        write_history(folder / "history.csv", outcome.result.history, start.base.model.plan.labels)
        write_summary(folder / "summary.json", summary)
    _remove_checkpoint(request)
    if client is None or not request.upload or not outcome.decision.passed:
        return summary
    _upload(request, start.base, client, outcome.after["mean"] or 0.0)
    progress.stage(f"sent {len(content)} bytes")
    summary = replace(summary, uploaded=True, seconds=round(time.perf_counter() - begin, 3))
    write_summary(request.out / "summary.json", summary)
    return summary


def _prepare(
    request: ImprovementRequest,
    settings: Settings,
    client: FederationClient | None,
    folder: Path,
    progress: Progress,
) -> _Start:
    """The base model, the site's cases, and how well the one does on the others."""
    base = _obtain_base(request, client, folder, progress)
    plan = base.model.plan
    collection = collect_cases(
        request.data, settings, labels=plan.labels, contrasts=plan.in_channels, say=progress.stage
    )
    progress.collected(collection)
    training, held_out = hold_out(collection.cases, seed=request.seed)
    progress.stage(f"{len(training)} cases to learn from, {len(held_out)} held out")
    network = build_network(plan, base.model.weights).to(choose_device())
    return _Start(base, network, _Cases(training, held_out), evaluate_cases(network, plan, held_out))


def _obtain_base(
    request: ImprovementRequest, client: FederationClient | None, folder: Path, progress: Progress
) -> BaseModel:
    if request.base is not None:
        return base_from_file(request.base, request.model_type)
    if client is None:
        raise SettingsError("expected a base model file or a federation server, found neither; name one of them")
    progress.stage(f"pulling the newest {request.model_type}")
    return base_from_server(client, request.model_type, folder / "base.model")


def _fine_tune(
    start: _Start, method: Method, request: ImprovementRequest, settings: Settings, progress: Progress
) -> _Outcome:
    """Train in place, take what moved, and measure it as it would be sent."""
    base, plan = start.base.model, start.base.model.plan
    result = _train(start, method, request, settings, progress)
    updates = _take_updates(start.network, base, method)
    improved = updated_model(base, updates_as_sent(updates), timestamp=int(time.time()))
    network = build_network(plan, improved.weights).to(choose_device())
    after = evaluate_cases(network, plan, start.cases.held_out)
    return _Outcome(result, updates, improved, after, decide_gate(start.before, after, margin=settings.dice_margin))


def _train(
    start: _Start, method: Method, request: ImprovementRequest, settings: Settings, progress: Progress
) -> FitResult:
    """The network keeps its low-rank factors, so that they can be taken."""
    zero_shot = start.before["mean"]
    if zero_shot is None:
        raise NotEnoughCasesError("expected held-out cases that show a label, found none; annotate more cases")
    plan = start.base.model.plan
    training, held_out = prepare_cases(start.cases.training, plan), prepare_cases(start.cases.held_out, plan)
    recipe = recipe_for_adaptation(
        method.name,
        zero_shot,
        epochs=request.epochs,
        seed=request.seed,
        numerics=remembered_numerics(start.network, plan, _BATCH_SIZE, settings.folder),
    )
    return fit(
        start.network,
        plan,
        method,
        training,
        held_out,
        recipe=replace(recipe, batch_size=_BATCH_SIZE),
        on_epoch=lambda record: progress.epoch(record, recipe.epochs),
        on_stage=progress.stage,
        checkpoint=request.out / _CHECKPOINT,
    )


def _remove_checkpoint(request: ImprovementRequest) -> None:
    try:
        (request.out / _CHECKPOINT).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {_CHECKPOINT}: {error.strerror or type(error).__name__}") from error


def _take_updates(network: nn.Module, base: GlobalModel, method: Method) -> tuple[WeightUpdate, ...]:
    """What moved, every tensor once."""
    tuned = canonical_weights(base.plan, plain_weights(network))
    return take_difference(canonical_weights(base.plan, base.weights), tuned, method.factors(network))


def _facts(start: _Start, method: Method, outcome: _Outcome) -> DeltaFacts:
    base = start.base
    return DeltaFacts(
        model_type=base.model_type,
        model_id=base.model.model_id,
        base_timestamp=base.version,
        base_sha256=digest_weights(base.model.weights),
        method=method.name,
        cases=len(start.cases.training),
        labels=base.model.plan.labels,
        dice_before=start.before,
        dice_after=outcome.after,
    )


def _summarise(
    start: _Start, method: Method, outcome: _Outcome, delta_bytes: int, seconds: float
) -> ImprovementSummary:
    return ImprovementSummary(
        dice_before=start.before,
        dice_after=outcome.after,
        delta_bytes=delta_bytes,
        model_bytes=start.base.file_bytes,
        method=method.name,
        epochs=len(outcome.result.history),
        best_epoch=outcome.result.best_epoch,
        seconds=round(seconds, 3),
        gate="passed" if outcome.decision.passed else "failed",
        gate_reason=outcome.decision.reason,
        cases=len(start.cases.training) + len(start.cases.held_out),
        held_out=len(start.cases.held_out),
        uploaded=False,
    )


def _upload(request: ImprovementRequest, base: BaseModel, client: FederationClient, dice: float) -> None:
    """Send update.delta, and only to a type whose operator understands deltas: elsewhere it would block the queue."""
    if base.capability is None or base.capability.delta < 1:
        raise TransportError(
            f"expected a type that takes deltas, found that {base.model_type} does not say so; "
            "nothing was sent, update.delta is kept; ask the operator to publish the type's capability"
        )
    client.upload(base.model_type, request.out / "update.delta", dice)
