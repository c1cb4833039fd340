"""What an improvement begins with: the base model, the site's cases and their division, and Dice before anything moves.

Invariants: whoever is held out is measured with the base as it came; where a budget is too short for several trainings,
the division is one fold; cases of the model's own domain are never among those that are held out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dafne_dante.annotations.case import Case
from dafne_dante.config import Settings
from dafne_dante.errors import SettingsError
from dafne_dante.federation.client import FederationClient
from dafne_dante.models.build import build_network
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.plugin.base_model import BaseModel, base_from_file, base_from_server
from dafne_dante.plugin.choosing import kept_choice, step_seconds
from dafne_dante.plugin.collecting import CaseRequest, collect_cases
from dafne_dante.plugin.division import Division, divide, measure_folds
from dafne_dante.plugin.improvement_request import ImprovementRequest, Progress
from dafne_dante.plugin.report.measured import Measurements
from dafne_dante.training.choice import AUTO, is_too_short
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device

__all__ = ["Start", "on_cases_of", "prepare"]


@dataclass(frozen=True, eq=False)
class Start:
    """What training begins with: the base, the cases, and Dice on the held-out ones; references and their Dice.

    `step_s` is how long a step takes where there is a budget, else 0.
    """

    base: BaseModel
    division: Division
    before: Mapping[str, float | None]
    measured: Measurements
    references: Sequence[Case]
    reference_before: Mapping[str, float | None] | None
    step_s: float = 0.0


def prepare(
    request: ImprovementRequest,
    settings: Settings,
    client: FederationClient | None,
    folder: Path,
    progress: Progress,
) -> Start:
    """The base model, the site's cases, and how well the one does on the others.

    Raises:
        TransportError, TrustError, ModelError: the base cannot be had, or is none.
        AnnotationError: cases cannot be read, or are too few.
        SettingsError: neither a base nor a server is named.
        StorageError: the disk refuses.
    """
    base = _obtain_base(request, settings, client, folder, progress)
    plan = base.model.plan
    collection = collect_cases(
        request.data, settings, labels=plan.labels, contrasts=plan.in_channels, say=progress.stage
    )
    progress.collected(collection)
    replayed = _of_own_domain(request.replay, request, settings, base.model, progress)
    division = divide(collection.cases, seed=request.seed).with_replay(replayed)
    division, step_s = _within_budget(division, request, base.model)
    progress.stage(division.words)
    if replayed:
        progress.stage(f"and {len(replayed)} of the model's own domain, so that less is forgotten")
    network = build_network(plan, base.model.weights).to(choose_device())
    measured = Measurements()
    before = measure_folds([network] * len(division.folds), plan, division, on_case=measured.take)
    references = _of_own_domain(request.reference, request, settings, base.model, progress)
    reference_before = evaluate_cases(network, plan, references) if references else None
    return Start(base, division, before, measured, references, reference_before, step_s)


def on_cases_of(start: Start, division: Division) -> Start:
    """The start, measured on what the division holds out; as it was where that is the same."""
    if division is start.division:
        return start
    model, measured = start.base.model, Measurements()
    network = build_network(model.plan, model.weights).to(choose_device())
    before = measure_folds([network] * len(division.folds), model.plan, division, on_case=measured.take)
    return replace(start, division=division, before=before, measured=measured)


def _within_budget(division: Division, request: ImprovementRequest, model: GlobalModel) -> tuple[Division, float]:
    """The division, one fold of it where the budget is too short for more, and seconds of a step."""
    if request.method != AUTO or request.minutes is None:
        return division, 0.0
    if kept := kept_choice(request.out, resume=request.resume):
        return (division.first_fold() if kept.one_training else division), 0.0
    step_s = step_seconds(model, request.thrift.batch_size)
    trainings = len(division.folds) + 1
    short = division.is_cross_fit and is_too_short(request.minutes, step_s, trainings, division.replay_factor)
    return (division.first_fold() if short else division), step_s


def _of_own_domain(
    folders: tuple[Path, ...],
    request: ImprovementRequest,
    settings: Settings,
    model: GlobalModel,
    progress: Progress,
) -> Sequence[Case]:
    """Cases of the global model's own domain."""
    if not folders:
        return ()
    wanted = CaseRequest(folders, skip_faulty=request.data.skip_faulty)
    plan = model.plan
    found = collect_cases(wanted, settings, labels=plan.labels, contrasts=plan.in_channels, say=progress.stage)
    return found.cases


def _obtain_base(
    request: ImprovementRequest,
    settings: Settings,
    client: FederationClient | None,
    folder: Path,
    progress: Progress,
) -> BaseModel:
    if request.base is not None:
        return base_from_file(request.base, request.model_type)
    if client is None:
        raise SettingsError("expected a base model file or a federation server, found neither; name one of them")
    progress.stage(f"pulling the newest {request.model_type}")
    return base_from_server(
        client,
        request.model_type,
        folder / "base.model",
        settings=settings,
        server=request.server,
        say=progress.stage,
    )
