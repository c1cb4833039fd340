"""The record of a training run: one row an epoch, as `history.csv`.

Columns: epoch (from 1), seconds (since training began), train_loss, val_loss, dice_mean, dice_<label>...,
trainable_parameters, learning_rate. Dice is measured on the held-out cases on the network's own grid; a value that
does not exist (no held-out case, a label that does not occur) is an empty field.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dafne_dante.durable import write_atomically

__all__ = ["EpochRecord", "write_history"]


@dataclass(frozen=True)
class EpochRecord:
    """One row; `dice` maps "mean" and every label to its value or None.

    `train_seconds` is what the steps of this epoch took; it is no column, since only it would differ between two runs
    of one seed besides `seconds`.
    """

    epoch: int
    seconds: float
    train_loss: float
    val_loss: float | None
    dice: Mapping[str, float | None] = field(default_factory=dict)
    trainable_parameters: int = 0
    learning_rate: float = 0.0
    train_seconds: float = 0.0

    @property
    def score(self) -> tuple[float, float]:
        """Higher is better: Dice first, loss second; without held-out cases the training loss decides."""
        mean = self.dice.get("mean")
        return (-1.0 if mean is None else mean), -(self.train_loss if self.val_loss is None else self.val_loss)


def write_history(path: Path, records: Sequence[EpochRecord], labels: Sequence[str]) -> None:
    """Write the rows so far, atomically; StorageError where the disk refuses."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["mean", *labels]
    columns = ["epoch", "seconds", "train_loss", "val_loss", *(f"dice_{name}" for name in names)]
    writer.writerow([*columns, "trainable_parameters", "learning_rate"])
    for record in records:
        numbers = [record.train_loss, record.val_loss, *(record.dice.get(name) for name in names)]
        cells = ["" if number is None else f"{number:.6f}" for number in numbers]
        tail = [str(record.trainable_parameters), f"{record.learning_rate:.3g}"]
        writer.writerow([str(record.epoch), f"{record.seconds:.3f}", *cells, *tail])
    write_atomically(path, text.getvalue().encode())
