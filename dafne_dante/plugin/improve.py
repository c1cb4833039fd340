"""The whole story of an improvement, on one page.

pull the global model -> collect the site's cases -> hold some out -> fine-tune -> take the delta -> sign it -> read
it back as the operator will -> quality gate on the held-out cases -> write the files -> upload.

Invariants
- The improved model is the base plus the delta *as it would be sent*: what was measured is what leaves the house.
- Nothing is written to the output folder before training has succeeded, except the base model that was pulled.
- Nothing is uploaded unless it was asked for, the gate passed, and the server's type says that it takes deltas.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from dafne_dante._version import __version__
from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.method import Method, method_named
from dafne_dante.annotations.case import Case
from dafne_dante.annotations.folders import read_cases
from dafne_dante.annotations.holdout import hold_out
from dafne_dante.config import Settings
from dafne_dante.delta.decode import decode_delta
from dafne_dante.delta.difference import apply_updates, take_difference
from dafne_dante.delta.encode import DeltaFacts, encode_delta
from dafne_dante.delta.signing import ensure_signing_key, public_key_text
from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import NotEnoughCasesError, SettingsError, TransportError
from dafne_dante.federation.client import FederationClient
from dafne_dante.models.build import build_network, canonical_weights, tie_aliases
from dafne_dante.models.file import read_model, serialise_model
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.plugin.gate import GateDecision, decide_gate
from dafne_dante.plugin.summary import ImprovementSummary, write_summary
from dafne_dante.training.defaults import recipe_for_adaptation
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device, remembered_numerics
from dafne_dante.training.history import EpochRecord, write_history
from dafne_dante.training.loop import FitResult, fit
from dafne_dante.training.prepared import prepare_cases

__all__ = ["ImprovementRequest", "Progress", "improve"]


@dataclass(frozen=True)
class ImprovementRequest:
    """What to improve, from what, and where to.

    Attributes:
        data: folder of labelled cases.
        out: folder for improved.model, update.delta, history.csv and summary.json (and base.model when pulled).
        base: a `.model` file; None pulls the newest version of `model_type` from the server.
        model_type: the type's name on the server; with a base file it only names the type in the delta.
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


@dataclass(frozen=True)
class _Base:
    """A global model with the version number and digest that a delta names."""

    model: GlobalModel
    version: str
    file_bytes: int


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
    make_folder(request.out)
    base = _obtain_base(request, client, progress)
    plan = base.model.plan
    cases = read_cases(request.data, labels=plan.labels)
    training, held_out = hold_out(cases, seed=request.seed)
    progress.stage(f"{len(training)} cases to learn from, {len(held_out)} held out")
    network = build_network(plan, base.model.weights).to(choose_device())
    before = evaluate_cases(network, plan, held_out)
    result = _fine_tune(network, base, method, request, settings, (training, held_out, before, progress))
    content, improved, after = _take_delta(network, base, method, request, settings, (cases, held_out, before))
    decision = decide_gate(before, after, margin=settings.dice_margin)
    progress.stage(decision.reason)
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
        cases=len(cases),
        held_out=len(held_out),
        uploaded=False,
    )
    delta_path = _write(request.out, content, improved, result, summary)
    if request.upload and decision.passed:
        summary = _upload(delta_path, request, client, decision, summary)
        progress.stage(f"sent {len(content)} bytes")
    return summary


def _obtain_base(request: ImprovementRequest, client: FederationClient | None, progress: Progress) -> _Base:
    if request.base is not None:
        model = read_model(request.base)
        return _Base(model, str(model.timestamp), request.base.stat().st_size)
    if client is None or not request.model_type:
        raise SettingsError("expected a base model file, or a server and a model type; name one of them")
    info = client.model_info(request.model_type)
    progress.stage(f"pulling {request.model_type} version {info.latest_timestamp}")
    path = client.download_model(request.model_type, info.latest_timestamp, request.out / "base.model")
    return _Base(read_model(path), info.latest_timestamp, path.stat().st_size)


def _fine_tune(
    network: nn.Module,
    base: _Base,
    method: Method,
    request: ImprovementRequest,
    settings: Settings,
    material: tuple[list[Case], list[Case], Mapping[str, float | None], Progress],
) -> FitResult:
    training, held_out, before, progress = material
    zero_shot = before["mean"]
    if zero_shot is None:
        raise NotEnoughCasesError("expected held-out cases that show at least one label, found none; annotate more")
    plan = base.model.plan
    recipe = recipe_for_adaptation(
        method.name, zero_shot, epochs=request.epochs, seed=request.seed, numerics=_no_numerics()
    )
    numerics = remembered_numerics(network, plan, recipe.batch_size, settings.folder)
    recipe = replace(recipe, numerics=numerics)
    return fit(
        network,
        plan,
        method,
        prepare_cases(training, plan),
        prepare_cases(held_out, plan),
        recipe=recipe,
        on_epoch=lambda record: progress.epoch(record, recipe.epochs),
    )
