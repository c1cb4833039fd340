"""What an improvement run came to, as one JSON object: `summary.json` and the answer of `improve --json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dafne_dante.durable import write_atomically

__all__ = ["ImprovementSummary", "write_summary"]


@dataclass(frozen=True)
class ImprovementSummary:
    """The outcome of one run.

    Attributes:
        dice_before, dice_after: "mean" and every label on the held-out cases, None for a label that never occurs;
            after is measured on the base plus the delta as it would be sent.
        delta_bytes, model_bytes: sizes of the delta file and of the base model file.
        epochs: epochs run; best_epoch is the one whose weights were kept.
        step: how much of the update was kept, 0 to 1; 0 when the global model stays.
        seconds: wall time of the whole run.
        gate: "passed" or "failed"; gate_reason says why in one sentence.
        cases: labelled cases found; held_out of them were not learned from, or, where cross_fit, each was held out
            from one of several trainings and all were learned from in the last.
        reference_before, reference_after: Dice on cases of the global model's own domain; None where none were given.
        uploaded: True when the server has the delta.
    """

    dice_before: Mapping[str, float | None]
    dice_after: Mapping[str, float | None]
    delta_bytes: int
    model_bytes: int
    method: str
    epochs: int
    best_epoch: int
    step: float
    seconds: float
    gate: str
    gate_reason: str
    cases: int
    held_out: int
    cross_fit: bool
    uploaded: bool
    reference_before: Mapping[str, float | None] | None = None
    reference_after: Mapping[str, float | None] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain Python values."""
        return asdict(self)


def write_summary(path: Path, summary: ImprovementSummary) -> None:
    """Write the summary atomically; StorageError where the disk refuses."""
    write_atomically(path, (json.dumps(summary.as_json(), indent=1, sort_keys=True) + "\n").encode())
