"""The whole story of an improvement, on one page.

pull the global model -> collect the site's cases -> hold some out -> fine-tune -> take the delta -> measure it as it
would be sent -> quality gate -> sign -> write the files -> outbox -> upload.

Invariants
- What is measured and judged is the base plus the delta *as it would be sent*. The improved model that stays is that,
  too, but for noise: where there is noise, it is the base plus the update before it was clipped and noised.
- The output folder gets all files of a run or none: until the last of them is written it is as it was, but for what
  `interrupted` names, which is there from the first epoch until the run is done and survives whatever ends the
  process. A run that is resumed from it sends what an uninterrupted one would have sent; with another base, other cases
  or other choices it is refused, and nothing is deleted.
- Somebody who stops gets what was measured on cases that it did not learn from, judged against the base on the same.
- What passes its gate is this site's own model of the type from then on, before anything is sent.
- Nothing is uploaded unless it was asked for, the gate passed, and the server's type says that it takes deltas; the
  files are there before, and the update is in the outbox, so that a failed upload loses nothing and is made up for.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

from dafne_dante.adaptation.wish import check_wish, make_method, unused_words
from dafne_dante.config import Settings
from dafne_dante.delta.encode import DeltaFacts, encode_delta
from dafne_dante.delta.noise import Noise
from dafne_dante.delta.signing import ensure_signing_key
from dafne_dante.durable import write_atomically
from dafne_dante.errors import NotEnoughCasesError, SettingsError
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.route import checked_address
from dafne_dante.models.build import build_network
from dafne_dante.models.file import write_model
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.plugin.arrivals import expect_arrival
from dafne_dante.plugin.carrying_over import carried_from_before, keep_carried
from dafne_dante.plugin.choosing import choice_for, situation_of
from dafne_dante.plugin.delivering import Delivery, deliver
from dafne_dante.plugin.gate import GateDecision, decide_gate
from dafne_dante.plugin.improvement_request import ImprovementRequest, Progress
from dafne_dante.plugin.improvement_start import Start, on_cases_of, prepare
from dafne_dante.plugin.interrupted import CHECKPOINT, check_parts, choice_kept_beside_checkpoints, clear
from dafne_dante.plugin.local.using import keep_for_this_site
from dafne_dante.plugin.preparing import cache_for
from dafne_dante.plugin.recipe_choice import as_chosen, check_recipe
from dafne_dante.plugin.report.facts import ReportFacts
from dafne_dante.plugin.report.measured import Measurements, pair_measurements
from dafne_dante.plugin.report.writing import REPORT, check_report_place, write_report
from dafne_dante.plugin.results import results_folder
from dafne_dante.plugin.summary import ImprovementSummary, write_summary
from dafne_dante.plugin.tuning import Tuned, Tuning, tune
from dafne_dante.training.choice import AUTO
from dafne_dante.training.defaults import recipe_for_adaptation
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device, remembered_numerics
from dafne_dante.training.history import write_history

__all__ = ["CHECKPOINT", "improve"]


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What training came to, whether it may leave the site, and Dice on the references afterwards.

    `start` is what it is judged against: the same cases.
    """

    start: Start
    tuned: Tuned
    measured: Measurements
    decision: GateDecision
    reference_after: Mapping[str, float | None] | None


def improve(
    request: ImprovementRequest,
    settings: Settings,
    *,
    client: FederationClient | None = None,
    progress: Progress | None = None,
) -> ImprovementSummary:
    """Improve a global model from a folder of labelled cases; files and meanings in ImprovementRequest.

    Raises:
        TransportError: also when the upload fails; the files of the run are there then, the update waits in the
            outbox, and summary.json says that it was not uploaded.
        DanteError: any other; no result was written then. The branch says who must act.
    """
    progress, begin = progress or Progress(), time.perf_counter()
    check_wish(request.wish)
    check_recipe(request)
    if request.method != AUTO:
        make_method(request.wish)  # a choice that cannot be is told before anything is read
    if request.elastic and not (request.replay or request.reference):
        raise SettingsError("expected --replay or --reference for an elastic pull, found neither; name one of them")
    server = _address(request, settings, client)
    check_report_place(request.report)
    with results_folder(request.out) as folder, choice_kept_beside_checkpoints(request.out):
        start = prepare(request, settings, client, folder, progress)
        # Made before hours of training, so that a folder for keys that cannot be written is told now.
        signing_key = ensure_signing_key(settings.folder)
        if not request.resume:
            clear(request.out)
        check_parts(request.out, len(start.division.folds) if start.division.is_cross_fit else 0)
        request, why = _settled(request, start, progress)
        outcome = _fine_tune(start, request, settings, progress)
        progress.stage(outcome.decision.reason)
        start, tuned = outcome.start, outcome.tuned
        update_id = uuid4()
        facts = _facts(start, request.method, tuned, _noise(settings))
        content = encode_delta(tuned.updates, facts, signing_key, update_id=update_id)
        summary = _summarise(start, request.method, outcome, len(content), time.perf_counter() - begin, why=why)
        write_model(tuned.improved, folder / "improved.model")
        write_atomically(folder / "update.delta", content)
        write_history(folder / "history.csv", tuned.result.history, start.base.model.plan.labels)
        write_summary(folder / "summary.json", summary)
        report = _report_facts(start, outcome, request, summary, content)
        write_report(request.report or folder / REPORT, report)
    clear(request.out)
    if outcome.decision.passed and start.base.model_type:
        keep_for_this_site(settings, request.out, seed=request.seed, say=progress.stage)
    if client is None or not request.upload or not outcome.decision.passed:
        return summary
    keep_carried(settings, update_id, start.base.model, tuned.left)
    delivery = Delivery(server, outcome.tuned.after["mean"] or 0.0, request.trigger)
    if request.trigger != "command":
        expect_arrival(request.out, replace(report, summary=replace(summary, uploaded=True)))
    deliver(content, delivery, settings, client, say=progress.stage)
    progress.stage(f"sent {len(content)} bytes")
    summary = replace(summary, uploaded=True, seconds=round(time.perf_counter() - begin, 3))
    write_summary(request.out / "summary.json", summary)
    write_report(request.report or request.out / REPORT, replace(report, summary=summary))
    return summary


def _address(request: ImprovementRequest, settings: Settings, client: FederationClient | None) -> str:
    """Where the update is to go; "" when it is to stay. Asked before hours of training."""
    if not request.upload:
        return ""
    if client is None:
        raise SettingsError("expected a federation server to upload to, found none; name it with --server")
    return checked_address(request.server or settings.server)


def _settled(request: ImprovementRequest, start: Start, progress: Progress) -> tuple[ImprovementRequest, str]:
    """The request with a method that is no longer open, and why it is that one; "" where somebody chose."""
    if request.method != AUTO:
        if request.minutes is not None:
            progress.stage(f"{request.method} takes the epochs that it takes: minutes are kept to where auto chooses")
        return request, ""
    model, zero_shot = start.base.model, start.before["mean"] or 0.0
    choice = choice_for(
        request.out,
        lambda: situation_of(model, start.division, zero_shot, minutes=request.minutes, step_s=start.step_s),
        resume=request.resume,
    )
    progress.stage(choice.why)
    if unused := unused_words(request.wish, choice.method):
        progress.stage(unused)
    settled = replace(
        request,
        method=choice.method,
        rank=request.rank or choice.rank,
        epochs=request.epochs or choice.epochs,
        steps=request.steps or choice.steps,
    )
    return settled, choice.why


def _fine_tune(start: Start, request: ImprovementRequest, settings: Settings, progress: Progress) -> _Outcome:
    """Train, choose how much of it to keep, and judge it as it would be sent."""
    zero_shot = start.before["mean"]
    if zero_shot is None:
        raise NotEnoughCasesError("expected held-out cases that show a label, found none; annotate more cases")
    model = start.base.model
    network = build_network(model.plan, model.weights).to(choose_device())
    recipe = recipe_for_adaptation(
        request.method,
        zero_shot,
        epochs=request.epochs,
        seed=request.seed,
        numerics=remembered_numerics(network, model.plan, request.thrift.batch_size, settings.folder),
        dimensions=model.plan.dimensions,
    )
    measured = Measurements()
    tuning = Tuning(
        model,
        lambda: make_method(request.wish),
        as_chosen(recipe, request, several=start.division.is_cross_fit),
        request.out,
        progress.epoch,
        progress.stage,
        progress.training,
        cache_for(request.data, settings, say=progress.stage).prepare,
        _noise(settings),
        measured.take,
        progress.stop,
        request.thrift,
        (start.division.replayed or start.references) if request.elastic else (),
        carried_from_before(settings, model) if request.upload else {},
    )
    tuned = tune(tuning, start.division)
    start = on_cases_of(start, tuned.division)
    return _Outcome(start, tuned, measured, _decide(start, tuned, settings), _reference_dice(start, tuned.improved))


def _decide(start: Start, tuned: Tuned, settings: Settings) -> GateDecision:
    if tuned.step == 0:
        return GateDecision(False, "no step of the update does better on the held-out cases: the global model stays")
    return decide_gate(start.before, tuned.after, margin=settings.dice_margin)


def _reference_dice(start: Start, improved: GlobalModel) -> Mapping[str, float | None] | None:
    if not start.references:
        return None
    network = build_network(improved.plan, improved.weights).to(choose_device())
    return evaluate_cases(network, improved.plan, start.references)


def _noise(settings: Settings) -> Noise | None:
    return Noise(settings.clip_norm, settings.noise_multiplier) if settings.clip_norm > 0 else None


def _facts(start: Start, method: str, tuned: Tuned, noise: Noise | None) -> DeltaFacts:
    base = start.base
    return DeltaFacts(
        model_type=base.model_type,
        model_id=base.model.model_id,
        base_timestamp=base.version,
        base_sha256=digest_weights(base.model.weights),
        method=method,
        cases=start.division.learned_from,
        labels=base.model.plan.labels,
        dice_before=start.before,
        dice_after=tuned.after,
        noise=noise,
    )


def _report_facts(
    start: Start, outcome: _Outcome, request: ImprovementRequest, summary: ImprovementSummary, content: bytes
) -> ReportFacts:
    held_out = pair_measurements(start.measured.items, outcome.measured.items)
    history = outcome.tuned.result.history
    base = start.base
    return ReportFacts(
        summary, base.model_type, base.model, start.division, history, held_out, content, upload=request.upload
    )


def _summarise(
    start: Start, method: str, outcome: _Outcome, delta_bytes: int, seconds: float, *, why: str
) -> ImprovementSummary:
    tuned, division = outcome.tuned, start.division
    return ImprovementSummary(
        dice_before=start.before,
        dice_after=tuned.after,
        delta_bytes=delta_bytes,
        model_bytes=start.base.file_bytes,
        method=method,
        epochs=len(tuned.result.history),
        best_epoch=tuned.result.best_epoch,
        step=tuned.step,
        seconds=round(seconds, 3),
        gate="passed" if outcome.decision.passed else "failed",
        gate_reason=outcome.decision.reason,
        cases=len(division.cases),
        held_out=division.held_out,
        cross_fit=division.is_cross_fit,
        uploaded=False,
        reference_before=start.reference_before,
        reference_after=outcome.reference_after,
        why=why,
        live=tuned.live,
    )
