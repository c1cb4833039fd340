"""A newer global model has arrived: what this site learned is carried over to it, or dropped.

The deltas that lead to the chosen version are added to the new global model, whole and by half (it may have learned
some of it from this very site); the better one is measured beside the new global model on the cases that the site
holds out. It stays when its mean Dice is higher and it passes the quality gate; else Dafne uses the new global model.

Invariants: nothing changes until that is known; the version that was used before stays on the shelf, to go back to;
the status says which it was, with the figures.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dafne_dante.config import Settings
from dafne_dante.delta.difference import apply_updates
from dafne_dante.errors import DeltaShapeError, DeltaValueError
from dafne_dante.models.build import build_network, tie_aliases
from dafne_dante.models.file import serialise_model
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.plugin.collecting import CaseRequest, collect_cases
from dafne_dante.plugin.division import Division, divide, measure_folds
from dafne_dante.plugin.gate import decide_gate
from dafne_dante.plugin.local.shelf import LocalShelf, local_shelf
from dafne_dante.plugin.local.using import own_delta
from dafne_dante.plugin.local.versions import LocalState, LocalVersion
from dafne_dante.training.hardware import choose_device

__all__ = ["Newer", "carry_over"]

Dice = Mapping[str, float | None]
_STEPS = (1.0, 0.5)


@dataclass(frozen=True, eq=False)
class Newer:
    """The newer global model and its version on the server, decimal digits."""

    model: GlobalModel
    version: str


@dataclass(frozen=True, eq=False)
class _Candidate:
    model: GlobalModel
    step: float
    dice: Dice

    @property
    def mean(self) -> float:
        return self.dice.get("mean") or 0.0


def carry_over(
    newer: Newer,
    model_type: str,
    settings: Settings,
    cases: CaseRequest,
    *,
    say: Callable[[str], None] = lambda words: None,
) -> LocalState:
    """Carry what was learned over to `newer`, or drop it; nothing is done for a version that was seen before.

    Raises:
        AnnotationError, TrustError: no case can be used; nothing has changed then.
        StorageError: the disk refuses, or what is kept is damaged.
    """
    shelf = local_shelf(settings, model_type)
    state = shelf.state()
    current = state.current
    if int(newer.version) <= int(state.seen or 0):
        return state
    if current is None:
        return shelf.choose(0, state.status, seen=newer.version)
    models = list(_added(shelf, current, newer.model, settings))
    if not models:
        return shelf.choose(0, f"dropped: global version {newer.version} is another network", seen=newer.version)
    division = _division(newer.model, current, settings, cases, say)
    before = _measured(newer.model, division)
    candidates = (_Candidate(model, step, _measured(model, division)) for model, step in models)
    best = max(candidates, key=lambda one: one.mean)
    words = _words(before, best, newer.version, division)
    old = before.get("mean") or 0.0
    passed = decide_gate(before, best.dice, margin=settings.dice_margin).passed and best.mean > old
    say(f"{'carried over' if passed else 'dropped'}: {words}")
    if not passed:
        return shelf.choose(0, f"dropped: {words}", seen=newer.version)
    content = serialise_model(best.model)
    made = LocalVersion(
        number=0,
        model=hashlib.sha256(content).hexdigest(),
        weights=digest_weights(best.model.weights),
        deltas=tuple((sha256, share * best.step) for sha256, share in current.deltas),
        base=newer.version,
        created_s=int(time.time()),
        before=old,
        after=best.mean,
        seed=current.seed,
        told=f"carried over: {words}",
    )
    return shelf.add(lambda state: replace(made, number=state.newest + 1), content, seen=newer.version)


def _added(
    shelf: LocalShelf, current: LocalVersion, base: GlobalModel, settings: Settings
) -> Sequence[tuple[GlobalModel, float]]:
    """The new global model with all and with half of what was learned; nothing where it does not fit."""
    deltas = [(own_delta(settings, shelf.delta(sha256)), share) for sha256, share in current.deltas]
    if any(delta.manifest.model_id != str(base.model_id) for delta, _ in deltas):
        return ()
    found = []
    try:
        for step in _STEPS:
            weights = dict(base.weights)
            for delta, share in deltas:
                weights = apply_updates(weights, delta.updates, step=step * share)
            found.append((replace(base, weights=tie_aliases(base.plan, weights)), step))
    except (DeltaShapeError, DeltaValueError):
        return ()
    return found


def _division(
    model: GlobalModel, current: LocalVersion, settings: Settings, cases: CaseRequest, say: Callable[[str], None]
) -> Division:
    """The cases divided as they were when the version was made, so that the same ones are held out."""
    plan = model.plan
    found = collect_cases(cases, settings, labels=plan.labels, contrasts=plan.in_channels, say=say)
    return divide(found.cases, seed=current.seed)


def _measured(model: GlobalModel, division: Division) -> Dice:
    network = build_network(model.plan, model.weights).to(choose_device())
    return measure_folds([network] * len(division.folds), model.plan, division)


def _words(before: Dice, best: _Candidate, version: str, division: Division) -> str:
    learned = ", from all of which it has learned" if division.is_cross_fit else ""
    old = before.get("mean") or 0.0
    return (
        f"on global version {version} Dice is {old:.3f} without and {best.mean:.3f} with what was learned here "
        f"({division.held_out} held-out cases{learned})"
    )
