"""What a cell came to, and how it is kept: one small JSON file a finished cell.

Terms: Dice is in [0, 1]; None where a label never occurs, or nothing can be compared. Seconds are of training alone:
`seconds` as the clock counts them (steps, and the look at windows of the selection cases after each epoch),
`processor_seconds` as one thread worked, which another program on the machine does not change.

Invariants: what is written is read back equal; a file that is not what `write_outcome` wrote is refused, never guessed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from dafne_dante.benchmark.protocol import Cell
from dafne_dante.benchmark.splits import Split
from dafne_dante.durable import read_bounded, write_atomically
from dafne_dante.errors import StorageError
from dafne_dante.models.global_model import GlobalModel

__all__ = ["CurvePoint", "Outcome", "Runner", "read_outcome", "write_outcome"]

_MAX_BYTES = 1 << 22


@dataclass(frozen=True)
class CurvePoint:
    """After an epoch (from 1): time since training began, and mean Dice on the selection cases."""

    epoch: int
    seconds: float
    processor_seconds: float
    dice: float | None


@dataclass(frozen=True)
class Outcome:
    """What training came to.

    Attributes:
        dice: on the test cases, in their own grid, as the receiver of what is sent would have it: "mean" and labels.
        zero_shot: mean Dice of the base on the test cases, before training.
        curve: one point an epoch.
        best_epoch: whose weights remain.
        learning_rate: that the method was given.
        trainable_parameters: how many numbers moved, at most.
        sent_bytes: of the signed delta; of a method from nothing, of the model file.
        peak_bytes: memory beyond what the process had when training began.
        source_before, source_after: mean Dice on the source's test cases; None where the target has other labels.
    """

    dice: Mapping[str, float | None]
    zero_shot: float | None
    curve: tuple[CurvePoint, ...]
    best_epoch: int
    learning_rate: float
    trainable_parameters: int
    sent_bytes: int
    peak_bytes: int
    source_before: float | None
    source_after: float | None


class Runner(Protocol):
    """Whoever can run a cell."""

    def run(self, cell: Cell, split: Split, base_model: GlobalModel, folder: Path) -> Outcome:
        """Train and measure.

        `base_model` has the source's labels; methods from nothing take its plan only. `folder` is new and the runner's
        own; it is removed afterwards. A DanteError says that the cell cannot be run.
        """


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Keep an outcome; StorageError where the disk refuses."""
    write_atomically(path, (json.dumps(asdict(outcome), indent=1) + "\n").encode())


def read_outcome(path: Path) -> Outcome:
    """Read what was kept.

    Raises:
        StorageError: the file cannot be read, or is not an outcome.
    """
    try:
        return _outcome(json.loads(read_bounded(path, max_bytes=_MAX_BYTES)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"expected a finished cell in {path.name}, found something else; remove that file"
        ) from error


def _outcome(content: Mapping[str, Any]) -> Outcome:
    if content.keys() != Outcome.__dataclass_fields__.keys():
        raise ValueError("other keys")
    points = tuple(
        CurvePoint(int(one["epoch"]), _number(one["seconds"]), _number(one["processor_seconds"]), _dice(one["dice"]))
        for one in content["curve"]
    )
    if not points:
        raise ValueError("no epoch")
    return Outcome(
        dice={"mean": None} | {str(name): _dice(value) for name, value in content["dice"].items()},
        zero_shot=_dice(content["zero_shot"]),
        curve=points,
        best_epoch=int(content["best_epoch"]),
        learning_rate=_number(content["learning_rate"]),
        trainable_parameters=int(content["trainable_parameters"]),
        sent_bytes=int(content["sent_bytes"]),
        peak_bytes=int(content["peak_bytes"]),
        source_before=_dice(content["source_before"]),
        source_after=_dice(content["source_after"]),
    )


def _dice(value: Any) -> float | None:
    return None if value is None else _number(value)


def _number(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError("not finite")
    return number
