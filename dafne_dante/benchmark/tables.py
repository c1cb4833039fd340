"""The outcomes as files: results.csv (a row a method and group), curves.csv (a row an epoch).

Invariants: both are made anew from the finished cells each time and replaced as a whole, so that a reader never sees
half a row; a value that does not exist is an empty field.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dafne_dante.benchmark.comparison import Row
from dafne_dante.benchmark.outcome import Outcome
from dafne_dante.benchmark.protocol import Cell, shots_in_words
from dafne_dante.durable import write_atomically

__all__ = ["RESULT_COLUMNS", "write_curves", "write_results"]

RESULT_COLUMNS = (
    "target", "shots", "pretraining", "seed", "method", "test_dice", "zero_shot_dice", "epochs", "best_epoch",
    "common_peak", "epochs_to_85", "seconds_to_85", "processor_seconds_to_85", "seconds", "processor_seconds",
    "learning_rate", "trainable_parameters", "sent_bytes", "peak_bytes", "source_dice_before", "source_dice_after",
    "test_dice_by_label",
)  # fmt: skip
_CURVE_COLUMNS = ("target", "shots", "pretraining", "seed", "method", "epoch", "seconds", "processor_seconds", "dice")


def write_results(path: Path, rows: Sequence[Row]) -> None:
    """Write results.csv; StorageError where the disk refuses."""
    _write(path, RESULT_COLUMNS, map(_result, rows))


def write_curves(path: Path, outcomes: Mapping[Cell, Outcome]) -> None:
    """Write curves.csv; a method from nothing has no pretraining there. StorageError where the disk refuses."""
    lines = [
        [
            *(cell.target, shots_in_words(cell.shots), cell.pretraining or "", cell.seed, cell.method, point.epoch),
            *(_text(point.seconds, 3), _text(point.processor_seconds, 3), _text(point.dice)),
        ]
        for cell, outcome in outcomes.items()
        for point in outcome.curve
    ]
    _write(path, _CURVE_COLUMNS, lines)


def _result(row: Row) -> list[object]:
    outcome, last, reached = row.outcome, row.outcome.curve[-1], row.reached
    labels = "; ".join(f"{name} {_text(value)}" for name, value in outcome.dice.items() if name != "mean")
    return [
        row.group.target, shots_in_words(row.group.shots), row.group.pretraining, row.group.seed, row.method,
        _text(row.dice), _text(outcome.zero_shot), last.epoch, outcome.best_epoch,
        _text(row.peak), reached.epoch if reached else "", _text(reached.seconds if reached else None, 3),
        _text(reached.processor_seconds if reached else None, 3), _text(last.seconds, 3),
        _text(last.processor_seconds, 3), f"{outcome.learning_rate:g}", outcome.trainable_parameters,
        outcome.sent_bytes, outcome.peak_bytes, _text(outcome.source_before), _text(outcome.source_after), labels,
    ]  # fmt: skip


def _write(path: Path, columns: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    write_atomically(path, text.getvalue().encode())


def _text(value: float | None, decimals: int = 4) -> str:
    return "" if value is None else f"{value:.{decimals}f}"
