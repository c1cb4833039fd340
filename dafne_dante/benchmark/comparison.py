"""From outcomes to what can be compared: rows with the time to the common peak, and methods against each other.

Terms
- common peak of a group: the highest selection Dice that any of its methods reached in any epoch. A method *reaches* it
  with the first epoch whose selection Dice is at least 85 % of the common peak.
- saved: the share of the epochs or seconds of training from scratch that a method does not need; below 0 where it needs
  more. Who does not reach the peak counts with all that it took: of scratch, so that at least so much is saved, of the
  method, so that it is at most so much. Where neither does, nothing can be told.

Invariants: only groups in which both methods have an outcome are compared; a pair is of one group, so differences and
shares are taken before means.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dafne_dante.benchmark.outcome import CurvePoint, Outcome
from dafne_dante.benchmark.protocol import Cell, Group
from dafne_dante.benchmark.splits import PRETRAININGS

__all__ = ["PEAK_SHARE", "Row", "Saving", "grouped", "make_rows", "saved"]

PEAK_SHARE = 0.85


@dataclass(frozen=True)
class Row:
    """One method in one group.

    Attributes:
        peak: the group's common peak.
        reached: the first point at 85 % of it; None where the method does not reach it.
    """

    group: Group
    method: str
    outcome: Outcome
    peak: float | None
    reached: CurvePoint | None

    @property
    def dice(self) -> float | None:
        """Mean test Dice."""
        return self.outcome.dice["mean"]

    @property
    def forgotten(self) -> float | None:
        """By how much the source's test Dice fell; None where it cannot be told, or there was nothing to forget."""
        before, after = self.outcome.source_before, self.outcome.source_after
        return None if before is None or after is None else before - after


@dataclass(frozen=True)
class Saving:
    """Shares of epochs, clock and processor seconds that a method saved; `bound` says which way they are off."""

    epochs: float
    seconds: float
    processor_seconds: float
    bound: Literal["", "≥", "≤"]


def make_rows(outcomes: Mapping[Cell, Outcome]) -> list[Row]:
    """A row for each cell and each group that it belongs to, groups together."""
    pretrainings = [one for one in PRETRAININGS if any(cell.pretraining == one for cell in outcomes)]
    members: dict[Group, dict[str, Outcome]] = {}
    for cell, outcome in outcomes.items():
        for group in cell.groups(pretrainings or PRETRAININGS):
            members.setdefault(group, {})[cell.method] = outcome
    rows: list[Row] = []
    for group, by_method in members.items():
        dice = [point.dice for one in by_method.values() for point in one.curve if point.dice is not None]
        peak = max(dice, default=None)
        rows += [Row(group, name, one, peak, _reached(one, peak)) for name, one in by_method.items()]
    return rows


def grouped(rows: Iterable[Row]) -> dict[Group, dict[str, Row]]:
    """The rows by group and method."""
    found: dict[Group, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.group, {})[row.method] = row
    return found


def saved(row: Row, scratch: Row) -> Saving | None:
    """What the method saved against training from scratch, in the same group; None where neither reaches the peak."""
    if row.reached is None and scratch.reached is None:
        return None
    own = row.reached or row.outcome.curve[-1]
    other = scratch.reached or scratch.outcome.curve[-1]
    return Saving(
        1 - own.epoch / other.epoch,
        1 - _ratio(own.seconds, other.seconds),
        1 - _ratio(own.processor_seconds, other.processor_seconds),
        "≥" if scratch.reached is None else "≤" if row.reached is None else "",
    )


def _reached(outcome: Outcome, peak: float | None) -> CurvePoint | None:
    if not peak:
        return None
    return _first(outcome.curve, PEAK_SHARE * peak)


def _first(curve: Sequence[CurvePoint], dice: float) -> CurvePoint | None:
    return next((point for point in curve if point.dice is not None and point.dice >= dice), None)


def _ratio(one: float, other: float) -> float:
    return one / other if other > 0 else 1.0
