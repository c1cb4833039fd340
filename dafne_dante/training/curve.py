"""The learning curve of a run as a picture: losses, Dice of each label, and the epoch whose weights stay."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dafne_dante.durable import write_atomically
from dafne_dante.errors import SettingsError
from dafne_dante.training.history import EpochRecord

__all__ = ["draw_learning_curve"]

_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
_MAX_LABELS = 12


def draw_learning_curve(path: Path, records: Sequence[EpochRecord], labels: Sequence[str], best_epoch: int) -> None:
    """Draw the rows into a PNG file; of many labels the first 12.

    Raises:
        SettingsError: matplotlib is not installed.
        StorageError: the disk refuses.
    """
    try:
        # Heavy, and an optional extra: training itself does not need it.
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError('expected matplotlib for the picture; run: pip install "dafne-dante[pictures]"') from error
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, dice = figure.subplots(1, 2)
    epochs = [record.epoch for record in records]
    losses.plot(epochs, [record.train_loss for record in records], color="#000000", label="training")
    _plot(losses, records, [record.val_loss for record in records], color="#D55E00", label="held out")
    for number, label in enumerate(labels[:_MAX_LABELS]):
        values = [record.dice.get(label) for record in records]
        _plot(dice, records, values, color=_COLOURS[number % len(_COLOURS)], label=label, linewidth=1.0)
    means = [record.dice.get("mean") for record in records]
    _plot(dice, records, means, color="#000000", label="mean", linewidth=2.0)
    for panel, name in ((losses, "loss (Dice and cross-entropy)"), (dice, "Dice on held-out cases")):
        panel.axvline(best_epoch, color="#888888", linestyle=":", label=f"epoch {best_epoch} stays")
        panel.set(xlabel="epoch", ylabel=name)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    dice.set_ylim(0, 1)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    write_atomically(path, stream.getvalue())


def _plot(panel: Any, records: Sequence[EpochRecord], values: Sequence[float | None], **style: Any) -> None:
    """A line through the epochs in which the value exists; none when it never does."""
    known = [(record.epoch, value) for record, value in zip(records, values, strict=True) if value is not None]
    if known:
        marker = "o" if len(known) == 1 else None
        panel.plot([epoch for epoch, _ in known], [value for _, value in known], marker=marker, **style)
