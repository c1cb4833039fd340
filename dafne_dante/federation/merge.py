"""One global model from many updates, in update space (DESIGN.md, Merging; SCIENCE.md section 5).

Terms: contribution, site, group, age and published as in `contribution`; a group's *mean* is that of `group_mean`; the
*direction* is how far the current weights would move at step 1.

Rules
- Updates of one group are averaged, never summed. A group with published updates moves the model by the change of its
  mean, mean(all) - mean(published), so updates that come one at a time end where one batch of them would.
- A weight's mean counts the contributions that trained it, no others.
- Groups share one step by the weights of their new contributions, each times the staleness factor (1 + age)^-1/2
  (FedAsync, arXiv 1903.03934); so the step sizes of one publish sum to at most 1.
- A step is taken only if no label's Dice on the operator's cases falls by more than its margin.

Invariants: pure; the order of contributions changes no bit; integer buffers stay as they are; low-rank updates enter
as their products, which is exact for any mix of ranks and methods; memory is that of the model, not of the number of
contributions. Aliases do not follow their weight: `models.build.tie_aliases` is the caller's to call.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from dafne_dante.delta.difference import WeightUpdate, apply_updates
from dafne_dante.delta.naming import shown
from dafne_dante.errors import DeltaReplayError, DeltaShapeError, DeltaValueError
from dafne_dante.federation.contribution import Contribution, contribution_from
from dafne_dante.federation.group_mean import clip_factors, contribution_weights, group_mean
from dafne_dante.federation.weight_rows import kept_open
from dafne_dante.federation.weighted_median import Rule
from dafne_dante.types import Weights

__all__ = [
    "STEPS",
    "Attempt",
    "Contribution",
    "Dice",
    "MergeOutcome",
    "choose_step",
    "contribution_from",
    "merge_direction",
    "merge_updates",
]

Dice = Mapping[str, float | None]
"""Label (and "mean") to Dice, None where the label never occurs."""

STEPS = (1.0, 0.5, 0.25)
"""Tried in this order; after the last nothing is published."""

# So that a fall by exactly the margin is allowed whatever its last bit says.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Attempt:
    """One step that was tried: Dice on the operator's cases, and what spoke against it (empty: nothing)."""

    step: float
    dice: Dice
    fault: str


@dataclass(frozen=True, eq=False)
class MergeOutcome:
    """What to publish.

    Attributes:
        step: the step taken; 0 publishes nothing.
        weights: the next global model's, the current ones at step 0.
        dice_before, dice_after: on the operator's cases, of the current and of these weights.
        reason: one sentence.
        attempts: in the order in which they were made.
    """

    step: float
    weights: Mapping[str, Tensor] = field(repr=False)
    dice_before: Dice
    dice_after: Dice
    reason: str
    attempts: tuple[Attempt, ...]


def choose_step(
    current: Weights,
    contributions: Sequence[Contribution],
    evaluate: Callable[[Weights], Dice],
    margin: float | Mapping[str, float],
    rule: Rule = "trimmed",
) -> MergeOutcome:
    """The longest step of STEPS that no label minds.

    A pure function of a set of contributions: to find the one that spoils a batch, call it again without each.

    Args:
        current: the current global weights.
        contributions: new ones, and the published ones of their groups.
        evaluate: Dice of weights on the operator's cases.
        margin: how far the Dice of a label may fall; one number, or one for each label (0 for any other).
        rule: what stands for the numbers of five sites or more (`group_mean`).

    Raises:
        DeltaError: as `merge_updates`.
    """
    before = evaluate(current)
    direction = merge_direction(current, contributions, rule)
    if not direction:
        return MergeOutcome(0.0, dict(current), before, before, "the updates move nothing", ())
    attempts: list[Attempt] = []
    for step in STEPS:
        weights = apply_updates(current, direction, step=step)
        after = evaluate(weights)
        attempts.append(Attempt(step, after, _fault(before, after, margin)))
        if not attempts[-1].fault:
            reason = f"at step {step:g} no label's Dice falls by more than its margin"
            return MergeOutcome(step, weights, before, after, reason, tuple(attempts))
    reason = f"even at step {STEPS[-1]:g} {attempts[-1].fault}"
    return MergeOutcome(0.0, dict(current), before, before, reason, tuple(attempts))


def merge_updates(current: Weights, contributions: Sequence[Contribution], *, step: float = 1.0) -> dict[str, Tensor]:
    """`current + step * direction` under all of current's names, in its order and dtypes.

    Raises:
        DeltaShapeError: an update does not fit the current weights.
        DeltaReplayError: an update_id occurs twice.
        DeltaValueError: a group's contributions disagree about its age, or a sum is not finite.
    """
    return apply_updates(current, merge_direction(current, contributions), step=step)


def merge_direction(
    current: Weights, contributions: Sequence[Contribution], rule: Rule = "trimmed"
) -> tuple[WeightUpdate, ...]:
    """How far each weight moves at step 1: dense, float32, in the order of `current`; weights that stay are left out.

    Raises:
        DeltaError: as `merge_updates`.
    """
    ordered = sorted(contributions, key=lambda one: one.update_id)
    _check(current, ordered)
    groups = {base: _Group([one for one in ordered if one.base_sha256 == base], rule) for base in _fresh_bases(ordered)}
    moves = (
        (name, _move(name, tuple(tensor.shape), groups))
        for name, tensor in current.items()
        if tensor.is_floating_point()
    )
    with kept_open([one.updates for one in ordered]):
        return tuple(WeightUpdate(name, move) for name, move in moves if move is not None and _moves(move))


@dataclass(frozen=True, eq=False)
class _Group:
    """The contributions of one base, in order; at least one of them is new."""

    contributions: Sequence[Contribution]
    rule: Rule

    @property
    def published(self) -> list[Contribution]:
        return [one for one in self.contributions if one.published]

    @property
    def staleness(self) -> float:
        """(1 + age)^-1/2."""
        return float((1 + self.contributions[0].age) ** -0.5)

    @cached_property
    def _clips(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Of all, and as they were when only the published ones had come."""
        return clip_factors(self.contributions), clip_factors(self.published)

    def change(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """How far the group's mean of weight `name` moved: mean(all) - mean(published), dense float32."""
        clips, clips_before = self._clips
        mean = group_mean(name, shape, _trained(name, self.contributions), clips, self.rule)
        if before := _trained(name, self.published):
            mean -= group_mean(name, shape, before, clips_before, self.rule)
        return mean


def _move(name: str, shape: tuple[int, ...], groups: Mapping[str, _Group]) -> Tensor | None:
    """The direction of one weight, None where no new contribution trained it."""
    fresh = [one for group in groups.values() for one in _trained(name, group.contributions) if not one.published]
    if not fresh:
        return None
    weights = contribution_weights(fresh)
    total = sum(weights)
    move: Tensor | None = None
    for base, group in groups.items():
        share = sum(weight for one, weight in zip(fresh, weights, strict=True) if one.base_sha256 == base) / total
        if share > 0:
            change = group.change(name, shape).mul_(share * group.staleness)
            move = change if move is None else move.add_(change)
    return move


def _moves(move: Tensor) -> bool:
    """Whether a number is not zero: one pass that allocates nothing, where `any` makes a copy."""
    lowest, highest = torch.aminmax(move)
    return float(lowest) != 0 or float(highest) != 0


def _trained(name: str, contributions: Iterable[Contribution]) -> list[Contribution]:
    return [one for one in contributions if name in one.updates]


def _fresh_bases(contributions: Iterable[Contribution]) -> list[str]:
    return sorted({one.base_sha256 for one in contributions if not one.published})


def _check(current: Weights, contributions: Sequence[Contribution]) -> None:
    # Shapes are checked where numbers are read (`weight_rows`), for reading an update only to look at it costs as much.
    ages: dict[str, int] = {}
    for earlier, one in zip([None, *contributions], contributions, strict=False):
        if earlier is not None and earlier.update_id == one.update_id:
            raise DeltaReplayError("expected every update once, found one twice")
        if ages.setdefault(one.base_sha256, one.age) != one.age:
            raise DeltaValueError("expected one age for all updates of a base, found two")
        for name in one.updates:
            target = current.get(name)
            if target is None or not target.is_floating_point():
                raise DeltaShapeError(f"expected {shown(name)} among the model's floating-point weights, found none")


def _fault(before: Dice, after: Dice, margin: float | Mapping[str, float]) -> str:
    """The first label that falls too far, in words; empty when none does. A label that never occurred says nothing."""
    for label, old in before.items():
        allowed = margin.get(label, 0.0) if isinstance(margin, Mapping) else margin
        new = after.get(label)
        # The mean is no label. Written so that a Dice of NaN is a fall.
        if label != "mean" and old is not None and not (new is not None and new >= old - allowed - _ROUNDING):
            found = "nothing" if new is None else f"{new:.3f}"
            return f"Dice of {shown(label)} falls from {old:.3f} to {found}"
    return ""
