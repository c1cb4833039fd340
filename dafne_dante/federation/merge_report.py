"""What a merge came to, as values that a program can read.

Invariants: frozen; `as_json` holds plain Python values only.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["MergeReport", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    """An upload that was not taken, and why."""

    upload: str
    reason: str


@dataclass(frozen=True)
class MergeReport:
    """What a merge came to.

    Attributes:
        merged: uploads that took part in what was published.
        quarantined: those that were refused.
        skipped: those that stay in the queue: the depot could not hand them out, or they wait for the next merge.
        withdrawn: withdrawals that were taken, and what became of their updates.
        step: the step taken, 0 when nothing was published.
        version: the new version, None when nothing was published.
        dice_before, dice_after: on the operator's cases; empty when nothing was tried.
        reason: one sentence.
    """

    merged: int = 0
    quarantined: tuple[Refusal, ...] = ()
    skipped: tuple[Refusal, ...] = ()
    withdrawn: tuple[Refusal, ...] = ()
    step: float = 0.0
    version: str | None = None
    dice_before: Mapping[str, float | None] = field(default_factory=dict)
    dice_after: Mapping[str, float | None] = field(default_factory=dict)
    reason: str = "no update waits"

    def as_json(self) -> dict[str, Any]:
        """Plain Python values."""
        lists = ("quarantined", "skipped", "withdrawn")
        return {**asdict(self), **{name: [*map(asdict, getattr(self, name))] for name in lists}}
