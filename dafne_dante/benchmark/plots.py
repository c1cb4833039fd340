"""The outcomes as pictures: Dice against seconds, bars with confidence intervals, bytes against Dice.

Invariants: a method has one colour (Okabe and Ito's palette) and one marker in all pictures, so that they can be read
without colours, too; names are drawn as the text that they are.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dafne_dante.benchmark.comparison import PEAK_SHARE, Row
from dafne_dante.benchmark.protocol import shots_in_words
from dafne_dante.benchmark.splits import PRETRAININGS
from dafne_dante.benchmark.summary import Setting, Summary, in_order, summarise
from dafne_dante.durable import write_atomically
from dafne_dante.errors import SettingsError

__all__ = ["draw_plots"]

_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_MARKERS = ("X", "s", "o", "^", "v", "D", "P", "*")
_PANEL = (3.4, 2.6)
_BAR_SHARE = 0.8

_Summaries = Mapping[Setting, Mapping[str, Summary]]
_Style = Mapping[str, tuple[str, str]]
"""Method to colour and marker."""


def draw_plots(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Draw dice_seconds.png, dice_bars.png and bytes_dice.png of the richest pretraining; none without rows.

    Others have the same with their name, as in dice_bars_small.png.

    Raises:
        SettingsError: matplotlib is not installed.
        StorageError: the disk refuses.
    """
    methods = in_order(row.method for row in rows)
    style = {name: (_COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)]) for at, name in enumerate(methods)}
    present = [one for one in reversed(PRETRAININGS) if any(row.group.pretraining == one for row in rows)]
    paths = []
    for place, pretraining in enumerate(present):
        summaries = {key: found for key, found in summarise(rows).items() if key.pretraining == pretraining}
        for name, draw in (("dice_seconds", _dice_seconds), ("dice_bars", _dice_bars), ("bytes_dice", _bytes_dice)):
            paths.append(folder / (f"{name}_{pretraining}.png" if place else f"{name}.png"))
            _save(paths[-1], draw(summaries, style))
    return paths


def _dice_seconds(summaries: _Summaries, style: _Style) -> Any:
    """A panel a target and shots: selection Dice after each epoch, means over seeds, and 85 % of the common peak."""
    targets, shots = _axes_of(summaries)
    figure, panels = _panels(len(targets), len(shots))
    for row, target in enumerate(targets):
        for column, count in enumerate(shots):
            panel = panels[row][column]
            panel.set_title(f"{target}, {_shots(count)}", fontsize=10, loc="left", parse_math=False)
            for setting, found in summaries.items():
                if (setting.target, setting.shots) == (target, count):
                    _curves(panel, found, style)
            panel.set(ylim=(0, 1))
            panel.set_xlim(left=0)
            panel.grid(alpha=0.3)
    figure.supxlabel(f"seconds of one thread's work ({_base(summaries)})")
    figure.supylabel("Dice on selection cases")
    return _with_legend(figure, style, lines=True)


def _curves(panel: Any, found: Mapping[str, Summary], style: _Style) -> None:
    for name, summary in found.items():
        colour, marker = style[name]
        seconds, dice = _mean_curve(summary)
        panel.plot(seconds, dice, color=colour, marker=marker, markersize=4, linewidth=1.4)
    peaks = [row.peak for summary in found.values() for row in summary.rows if row.peak is not None]
    if peaks:
        panel.axhline(PEAK_SHARE * float(np.mean(peaks)), color="#888888", linestyle=":", linewidth=1.2)


def _mean_curve(summary: Summary) -> tuple[list[float], list[float]]:
    """Epoch by epoch the means over seeds, as far as all went."""
    curves = [row.outcome.curve for row in summary.rows]
    epochs = list(zip(*curves, strict=False))
    seconds = [float(np.mean([point.processor_seconds for point in points])) for points in epochs]
    dice = [[point.dice for point in points if point.dice is not None] for points in epochs]
    return seconds, [float(np.mean(values)) if values else float("nan") for values in dice]


def _dice_bars(summaries: _Summaries, style: _Style) -> Any:
    """A panel a target: bars of test Dice by shots and method, with 95 % intervals over seeds."""
    targets, shots = _axes_of(summaries)
    figure, panels = _panels(len(targets), 1, width=2.2)
    for row, target in enumerate(targets):
        panel = panels[row][0]
        for place, name in enumerate(style):
            values = [_dice_of(summaries, name, target, count) for count in shots]
            width = _BAR_SHARE / len(style)
            at = np.arange(len(shots)) + (place + 0.5) * width - _BAR_SHARE / 2
            panel.bar(at, [value for value, _ in values], width * 0.92, color=style[name][0])
            panel.errorbar(at, *zip(*values, strict=True), fmt="none", ecolor="#777777", capsize=3, linewidth=1.4)
        panel.set_title(target, fontsize=10, loc="left", parse_math=False)
        panel.set_xticks(np.arange(len(shots)), [_shots(count) for count in shots])
        panel.set(ylim=(0, 1))
        panel.set_axisbelow(True)
        panel.grid(axis="y", alpha=0.3)
    figure.supxlabel(_base(summaries))
    figure.supylabel("Dice on test cases")
    return _with_legend(figure, style, lines=False)


def _dice_of(summaries: _Summaries, method: str, target: str, shots: int | None) -> tuple[float, float]:
    """Mean and half width; NaN, which is not drawn, where there is none."""
    for setting, found in summaries.items():
        if (setting.target, setting.shots) == (target, shots) and method in found:
            interval = found[method].dice
            if interval is not None:
                return interval.mean, float("nan") if interval.half_width is None else interval.half_width
    return float("nan"), float("nan")


def _bytes_dice(summaries: _Summaries, style: _Style) -> Any:
    """A panel a target: what is sent against test Dice; a point a method and shots, larger for more shots."""
    targets, shots = _axes_of(summaries)
    figure, panels = _panels(1, len(targets))
    for column, target in enumerate(targets):
        panel = panels[0][column]
        for setting, found in summaries.items():
            if setting.target == target:
                for name, summary in found.items():
                    _point(panel, summary, style[name], size=22 + 26 * (len(shots) - 1 - shots.index(setting.shots)))
        panel.set_title(target, fontsize=10, loc="left", parse_math=False)
        panel.set(xscale="log", ylim=(0, 1))
        _in_kilobytes(panel.xaxis)
        panel.grid(alpha=0.3, which="both")
    figure.supxlabel(f"kB sent (larger marks: more shots; {_base(summaries)})")
    figure.supylabel("Dice on test cases")
    return _with_legend(figure, style, lines=False, markers=True)


def _in_kilobytes(axis: Any) -> None:
    """Plain numbers at 1, 2 and 5 of each decade: powers of ten collide where less than a decade is shown."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda sent, _: f"{sent / 1000:g}"))
    axis.set_minor_locator(NullLocator())


def _point(panel: Any, summary: Summary, style: tuple[str, str], *, size: float) -> None:
    if summary.dice is not None:
        sent = float(np.mean([row.outcome.sent_bytes for row in summary.rows]))
        panel.scatter(sent, summary.dice.mean, s=size, color=style[0], marker=style[1], alpha=0.8, linewidths=0)


def _base(summaries: _Summaries) -> str:
    """Which base models the picture is about; all have the same pretraining."""
    return f"base models: {next(iter(summaries)).pretraining}"


def _axes_of(summaries: _Summaries) -> tuple[list[str], list[int | None]]:
    """Targets in order, and shots with the full data first and the fewest last."""
    shots = {setting.shots for setting in summaries}
    ordered = sorted(shots, key=lambda count: float("-inf") if count is None else -count)
    return list(dict.fromkeys(setting.target for setting in summaries)), ordered


def _shots(count: int | None) -> str:
    return "full data" if count is None else f"{shots_in_words(count)} shot{'' if count == 1 else 's'}"


def _panels(rows: int, columns: int, *, width: float = 1.0) -> tuple[Any, Any]:
    try:
        # Heavy, and an optional extra.
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError('expected matplotlib for the plots; run: pip install "dafne-dante[pictures]"') from error
    size = (columns * _PANEL[0] * width + 0.6, rows * _PANEL[1] + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=True)


def _with_legend(figure: Any, style: _Style, *, lines: bool, markers: bool = False) -> Any:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    handles = [
        Line2D(
            [], [], color=colour, linestyle="-" if lines else "", marker=marker if lines or markers else "s",
            markersize=7, label=name,
        )
        for name, (colour, marker) in style.items()
    ]  # fmt: skip
    if lines:
        handles.append(Line2D([], [], color="#888888", linestyle=":", label=f"{PEAK_SHARE:.0%} of the common peak"))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5), frameon=False, fontsize=9)
    return figure


def _save(path: Path, figure: Any) -> None:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    write_atomically(path, stream.getvalue())
