"""The learning curve of a run as a picture: losses on the left, Dice of each label on the right, the epoch that stays.

Invariant: a label is drawn as the text that it is, whatever stands in it; none can keep the picture from being made.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dafne_dante.durable import write_atomically
from dafne_dante.errors import SettingsError
from dafne_dante.training.history import EpochRecord

__all__ = ["draw_learning_curve"]

_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
_LINES = ("-", "--")
_MAX_LABELS = 12
_MAX_LETTERS = 40


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
    _plot(losses, records, [record.train_loss for record in records], color="#000000", label="training")
    _plot(losses, records, [record.val_loss for record in records], color="#D55E00", label="held out")
    for number, label in enumerate(labels[:_MAX_LABELS]):
        values = [record.dice.get(label) for record in records]
        line = _LINES[number // len(_COLOURS)]
        colour = _COLOURS[number % len(_COLOURS)]
        _plot(dice, records, values, color=colour, linestyle=line, label=_shown(label), linewidth=1.0)
    means = [record.dice.get("mean") for record in records]
    _plot(dice, records, means, color="#000000", label="mean", linewidth=2.0)
    for panel, name in ((losses, "loss (Dice and cross-entropy)"), (dice, "Dice on held-out cases")):
        panel.axvline(best_epoch, color="#888888", linestyle=":", label=f"epoch {best_epoch} stays")
        panel.set(xlabel="epoch", ylabel=name, xlim=(0.5, len(records) + 0.5))
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        for text in panel.legend(fontsize=8).get_texts():
            text.set_parse_math(False)  # a dollar in a label is no formula
    dice.set_ylim(0, 1)
    if all(value is None for value in means):
        dice.text(0.5, 0.5, "no held-out Dice", transform=dice.transAxes, ha="center", color="#666666")
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(stream, format="png", dpi=110)
    write_atomically(path, stream.getvalue())


def _shown(label: str) -> str:
    """The label for the legend, which would leave one out that begins with an underscore."""
    short = label if len(label) <= _MAX_LETTERS else f"{label[: _MAX_LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
    return f" {short}" if short.startswith("_") else short


def _plot(panel: Any, records: Sequence[EpochRecord], values: Sequence[float | None], **style: Any) -> None:
    """A line through the epochs in which the value exists; none when it never does."""
    known = [(record.epoch, value) for record, value in zip(records, values, strict=True) if value is not None]
    if known:
        marker = "o" if len(known) == 1 else None
        panel.plot([epoch for epoch, _ in known], [value for _, value in known], marker=marker, **style)
