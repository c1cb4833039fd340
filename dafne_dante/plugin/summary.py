"""What an improvement run came to, as one JSON object: `summary.json` and the answer of `improve --json`.

Invariants: version 2 added `why` and `live`; a summary of an earlier version has none of them and is read all the same,
and what a later version adds is left out.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dafne_dante.durable import read_bounded, write_atomically
from dafne_dante.errors import StorageError

__all__ = ["VERSION", "ImprovementSummary", "read_summary", "write_summary"]

VERSION = 2
_MAX_BYTES = 1 << 20
_MOST_LIVE = 64


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
        why: why auto chose the method, in one sentence; "" where somebody chose it.
        live: what could move, as parameters and as a share of a step's work, and from which epoch on.
        version: of these names.
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
    why: str = ""
    live: tuple[str, ...] = ()
    version: int = VERSION

    def as_json(self) -> dict[str, Any]:
        """Plain Python values."""
        return {**asdict(self), "live": list(self.live)}


def write_summary(path: Path, summary: ImprovementSummary) -> None:
    """Write the summary atomically; StorageError where the disk refuses."""
    write_atomically(path, (json.dumps(summary.as_json(), indent=1, sort_keys=True) + "\n").encode())


def read_summary(path: Path) -> ImprovementSummary:
    """The summary that this or an earlier version wrote; StorageError where it cannot be read or is none."""
    try:
        found = json.loads(read_bounded(path, max_bytes=_MAX_BYTES))
        known = {one.name: found[one.name] for one in fields(ImprovementSummary) if one.name in found}
        live = tuple(str(words) for words in found.get("live", ())[:_MOST_LIVE])
        version = int(found.get("version", 1))
        summary = ImprovementSummary(**{**known, "live": live, "why": str(found.get("why", "")), "version": version})
        if summary.gate not in ("passed", "failed") or not isinstance(summary.dice_after, dict):
            raise ValueError("no outcome")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise StorageError(f"expected the summary of the job, found a fault in {path.name}; improve again") from error
    return summary
