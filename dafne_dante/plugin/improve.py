"""The whole story of an improvement, on one page.

pull the global model -> collect the site's cases -> hold some out -> fine-tune -> take the delta -> measure it as it
would be sent -> quality gate -> sign -> write the files -> upload.

Invariants
- The improved model is the base plus the delta *as it would be sent*: what was measured is what leaves the house.
- Until training has succeeded nothing is written to the output folder, except the base model that was pulled.
- Nothing is uploaded unless it was asked for, the gate passed, and the server's type says that it takes deltas.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.method import Method, method_named
from dafne_dante.annotations.case import Case
from dafne_dante.annotations.folders import read_cases
from dafne_dante.annotations.holdout import hold_out
from dafne_dante.config import Settings
from dafne_dante.delta.difference import WeightUpdate, take_difference
from dafne_dante.delta.encode import DeltaFacts, encode_delta, updates_as_sent
from dafne_dante.delta.signing import ensure_signing_key
from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import NotEnoughCasesError, SettingsError, TransportError
from dafne_dante.federation.client import FederationClient
from dafne_dante.models.build import build_network, canonical_weights
from dafne_dante.models.file import write_model
from dafne_dante.models.global_model import digest_weights
from dafne_dante.plugin.apply import updated_model
from dafne_dante.plugin.base_model import BaseModel, base_from_file, base_from_server
from dafne_dante.plugin.gate import decide_gate
from dafne_dante.plugin.summary import ImprovementSummary, write_summary
from dafne_dante.training.defaults import recipe_for_adaptation
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device, remembered_numerics
from dafne_dante.training.history import EpochRecord, write_history
from dafne_dante.training.loop import FitResult, fit
from dafne_dante.training.prepared import prepare_cases

__all__ = ["ImprovementRequest", "Progress", "improve"]

_BATCH_SIZE = 2


@dataclass(frozen=True)
class ImprovementRequest:
    """What to improve, from what, and where to.

    Attributes:
        data: folder of labelled cases.
        out: folder for improved.model, update.delta, history.csv and summary.json (and base.model when pulled).
        base: a `.model` file; None pulls the newest version of `model_type` from the server.
        model_type: the type's name on the server; with a base file it only names the type in the delta.
        method: one of METHOD_NAMES.
        epochs: None for the default.
        upload: send the delta when the gate passes.
    """

    data: Path
    out: Path
    base: Path | None = None
    model_type: str = ""
    method: str = "lora"
    epochs: int | None = None
    seed: int = 0
    upload: bool = False


@dataclass(frozen=True)
class Progress:
    """Where to tell what happens: a stage in words, and every finished epoch with the number of epochs."""

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


def improve(
    request: ImprovementRequest,
    settings: Settings,
    *,
    client: FederationClient | None = None,
    progress: Progress | None = None,
) -> ImprovementSummary:
    """Improve a global model from a folder of labelled cases; files and meanings in ImprovementRequest.

    Raises:
        DanteError: the branch says who must act; the output folder is then as it was.
    """
    progress = progress or Progress()
    begin = time.perf_counter()
    method = method_named(request.method)
    signing_key = ensure_signing_key(settings.folder)
    base = _obtain_base(request, client, progress)
    plan, weights = base.model.plan, base.model.weights
    cases = _collect(request, plan.labels, progress)
    network = build_network(plan, weights).to(choose_device())
    before = evaluate_cases(network, plan, cases.held_out)
    start = _Start(base, network, cases, before)
    result = _fine_tune(start, method, request, settings, progress)
    updates = _take_updates(network, base, method)
    improved = updated_model(base.model, updates_as_sent(updates), timestamp=int(time.time()))
    after = evaluate_cases(build_network(plan, improved.weights).to(choose_device()), plan, cases.held_out)
    decision = decide_gate(before, after, margin=settings.dice_margin)
    progress.stage(decision.reason)
    count = len(cases.training) + len(cases.held_out)
    facts = DeltaFacts(
        model_type=base.model_type,
        model_id=base.model.model_id,
        base_timestamp=base.version,
        base_sha256=digest_weights(weights),
        method=method.name,
        cases=len(cases.training),
        labels=plan.labels,
        dice_before=before,
        dice_after=after,
    )
    content = encode_delta(updates, facts, signing_key)
    make_folder(request.out)
    write_model(improved, request.out / "improved.model")
    write_atomically(request.out / "update.delta", content)
    write_history(request.out / "history.csv", result.history, plan.labels)
    uploaded = request.upload and decision.passed
    if uploaded:
        _upload(request, base, client, decision_dice=after)
        progress.stage(f"sent {len(content)} bytes")
    summary = ImprovementSummary(
        dice_before=before,
        dice_after=after,
        delta_bytes=len(content),
        model_bytes=base.file_bytes,
        method=method.name,
        epochs=len(result.history),
        best_epoch=result.best_epoch,
        seconds=round(time.perf_counter() - begin, 3),
        gate="passed" if decision.passed else "failed",
        gate_reason=decision.reason,
        cases=count,
        held_out=len(cases.held_out),
        uploaded=uploaded,
    )
    write_summary(request.out / "summary.json", summary)
    return summary


def _obtain_base(request: ImprovementRequest, client: FederationClient | None, progress: Progress) -> BaseModel:
    if request.base is not None:
        return base_from_file(request.base, request.model_type)
    if client is None:
        raise SettingsError("expected a base model file or a federation server, found neither; name one of them")
    progress.stage(f"pulling the newest {request.model_type}")
    return base_from_server(client, request.model_type, make_folder(request.out) / "base.model")


def _collect(request: ImprovementRequest, labels: tuple[str, ...], progress: Progress) -> _Cases:
    training, held_out = hold_out(read_cases(request.data, labels=labels), seed=request.seed)
    progress.stage(f"{len(training)} cases to learn from, {len(held_out)} held out")
    return _Cases(training, held_out)


def _fine_tune(
    start: _Start, method: Method, request: ImprovementRequest, settings: Settings, progress: Progress
) -> FitResult:
    """Train in place; the network keeps its low-rank factors, so that they can be taken."""
    zero_shot = start.before["mean"]
    if zero_shot is None:
        raise NotEnoughCasesError("expected held-out cases that show a label, found none; annotate more cases")
    plan = start.base.model.plan
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
        prepare_cases(start.cases.training, plan),
        prepare_cases(start.cases.held_out, plan),
        recipe=replace(recipe, batch_size=_BATCH_SIZE),
        on_epoch=lambda record: progress.epoch(record, recipe.epochs),
    )


def _take_updates(network: nn.Module, base: BaseModel, method: Method) -> tuple[WeightUpdate, ...]:
    """What moved, every tensor once."""
    plan = base.model.plan
    tuned = canonical_weights(plan, plain_weights(network))
    return take_difference(canonical_weights(plan, base.model.weights), tuned, method.factors(network))


def _upload(
    request: ImprovementRequest,
    base: BaseModel,
    client: FederationClient | None,
    *,
    decision_dice: Mapping[str, float | None],
) -> None:
    """Send update.delta, and only to a type whose operator understands deltas: elsewhere it would block the queue."""
    if client is None:
        raise SettingsError("expected a federation server to upload to, found none; name it with --server")
    if base.capability is None or base.capability.delta < 1:
        raise TransportError(
            f"expected a type that takes deltas, found that {base.model_type} does not say so; "
            "nothing was sent, update.delta is kept; ask the operator to publish the type's capability"
        )
    client.upload(base.model_type, request.out / "update.delta", decision_dice["mean"] or 0.0)
