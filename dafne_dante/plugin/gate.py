"""The quality gate: an improvement leaves the site only when it is one.

Rule: on the held-out cases the mean Dice must not be lower than the global model's, and no label may fall by more
than its margin.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["GateDecision", "decide_gate"]

Dice = Mapping[str, float | None]


@dataclass(frozen=True)
class GateDecision:
    """Passed or not, and why, in one sentence."""

    passed: bool
    reason: str


def decide_gate(before: Dice, after: Dice, *, margin: float) -> GateDecision:
    """Compare Dice on the held-out cases ("mean" and every label); a label that occurs in neither says nothing."""
    mean_before, mean_after = before.get("mean"), after.get("mean")
    if mean_before is None or mean_after is None:
        return GateDecision(False, "no label occurs in the held-out cases, so nothing can be compared")
    if mean_after < mean_before:
        return GateDecision(False, f"mean Dice fell from {mean_before:.3f} to {mean_after:.3f} on the held-out cases")
    for label, old in before.items():
        new = after.get(label)
        if old is not None and (new is None or new < old - margin):
            return GateDecision(False, f"Dice of {label} fell from {old:.3f} to {0 if new is None else new:.3f}")
    return GateDecision(True, f"mean Dice went from {mean_before:.3f} to {mean_after:.3f} on the held-out cases")
