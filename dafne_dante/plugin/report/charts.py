"""Charts as numbers on a canvas, which the template turns into SVG; nothing here is text of a page.

Terms
- A *dumbbell* is one label: a dot before, a dot after, and a small dot for every held-out case with each model.
- A *line chart* has epochs from left to right.

Invariants: the canvas is 340 units wide, so that text is readable where it is shown 300 pixels wide; every value that
is drawn lies inside the plot; at most 30 dumbbells of at most 60 cases and 6 lines are drawn (of labels those that
moved most), what is left out is counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from dafne_dante.plugin.report.measured import HeldOutCase
from dafne_dante.training.history import EpochRecord

__all__ = [
    "MOST_CASES",
    "Dumbbell",
    "Dumbbells",
    "Line",
    "LineChart",
    "Tick",
    "dice_curves",
    "dumbbells",
    "loss_curves",
]

WIDTH = 340
LEFT, RIGHT = 12.0, 328.0
ROW, HEAD = 52.0, 6.0
CURVE_LEFT, CURVE_RIGHT, CURVE_TOP, CURVE_BOTTOM = 40.0, 330.0, 12.0, 176.0
MOST_LABELS, MOST_CASES, MOST_LINES = 30, 60, 6
_MOST_POINTS = 400

Dice = Mapping[str, float | None]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where on the canvas, and its text."""

    position: float
    text: str


@dataclass(frozen=True)
class Dumbbell:
    """One label; positions are x on the canvas, `y` that of its line; None where nothing could be measured."""

    name: str
    y: float
    before: float | None
    after: float | None
    dots_before: tuple[float, ...]
    dots_after: tuple[float, ...]
    values: tuple[float | None, float | None]


@dataclass(frozen=True)
class Dumbbells:
    """All labels over one axis."""

    rows: tuple[Dumbbell, ...]
    ticks: tuple[Tick, ...]
    height: float
    left_out: int


@dataclass(frozen=True)
class Line:
    """`points` as SVG's polyline wants them; `style` 0 is the mean, 1 to 5 are labels."""

    name: str
    points: str
    style: int
    last: tuple[float, float]


@dataclass(frozen=True)
class LineChart:
    """Lines over epochs; `best_x` is where the epoch is that was kept."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    best_x: float | None
    left_out: int


def dumbbells(before: Dice, after: Dice, held_out: Sequence[HeldOutCase] = ()) -> Dumbbells:
    """Every label's Dice before and after, the mean first."""
    names = [name for name in before if name != "mean"]
    measured = [name for name in names if before.get(name) is not None or after.get(name) is not None]
    kept = _moved_most(measured, before, after, MOST_LABELS)
    cases = held_out[:MOST_CASES]
    found = {
        name: ([one.before.dice.get(name) for one in cases], [one.after.dice.get(name) for one in cases])
        for name in ("mean", *kept)
    }
    drawn = [value for name in found for value in (before.get(name), after.get(name), *found[name][0], *found[name][1])]
    low = _floor_of([value for value in drawn if value is not None])

    def x(value: float | None) -> float | None:
        return None if value is None else round(LEFT + (value - low) / (1 - low) * (RIGHT - LEFT), 1)

    rows = tuple(
        Dumbbell(
            name,
            HEAD + ROW * (index + 0.52),
            x(before.get(name)),
            x(after.get(name)),
            _present(x(value) for value in found[name][0]),
            _present(x(value) for value in found[name][1]),
            (before.get(name), after.get(name)),
        )
        for index, name in enumerate(found)
    )
    steps = round((1 - low) * 10)
    wanted = [low + number / 10 for number in range(0, steps + 1, 2 if steps > 5 and steps % 2 == 0 else 1)]
    ticks = tuple(Tick(x(value) or LEFT, f"{value:.1f}") for value in wanted)
    return Dumbbells(rows, ticks, HEAD + ROW * len(rows) + 26, len(names) - len(kept))


def dice_curves(history: Sequence[EpochRecord], labels: Sequence[str], best_epoch: int) -> LineChart | None:
    """Dice on the held-out cases, epoch by epoch; None where it was never measured."""
    series = {name: [record.dice.get(name) for record in history] for name in ("mean", *labels)}
    measured = {name: values for name, values in series.items() if any(value is not None for value in values)}
    if not measured:
        return None
    first = {name: next(value for value in values if value is not None) for name, values in measured.items()}
    last = {name: next(value for value in values[::-1] if value is not None) for name, values in measured.items()}
    names = [name for name in labels if name in measured]
    kept = _moved_most(names, first, last, MOST_LINES - 1)
    low = _floor_of([value for name in ("mean", *kept) for value in measured.get(name, []) if value is not None])
    return _chart(
        {name: measured[name] for name in ("mean", *kept)}, history, (low, 1.0), best_epoch, len(names) - len(kept)
    )


def loss_curves(history: Sequence[EpochRecord], best_epoch: int) -> LineChart | None:
    """Loss in training and on the held-out cases; None without epochs."""
    series: dict[str, list[float | None]] = {"training": [record.train_loss for record in history]}
    held_out = [record.val_loss for record in history]
    if any(value is not None for value in held_out):
        series["held-out"] = held_out
    finite = [value for values in series.values() for value in values if value is not None and isfinite(value)]
    if not finite:
        return None
    low, high = min(0.0, *finite), max(finite)
    return _chart(series, history, (low, high if high > low else low + 1), best_epoch, 0)


def _chart(
    series: Mapping[str, Sequence[float | None]],
    history: Sequence[EpochRecord],
    span: tuple[float, float],
    best_epoch: int,
    left_out: int,
) -> LineChart:
    y_values = _round_values(*span)
    low, high = min(span[0], y_values[0]), max(span[1], y_values[-1])
    first, last = history[0].epoch, history[-1].epoch

    def x(epoch: int) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return round(CURVE_LEFT + share * (CURVE_RIGHT - CURVE_LEFT), 1)

    def y(value: float) -> float:
        return round(CURVE_BOTTOM - (value - low) / (high - low) * (CURVE_BOTTOM - CURVE_TOP), 1)

    stride = -(-len(history) // _MOST_POINTS)
    lines = []
    for style, (name, values) in enumerate(series.items()):
        pairs = [
            (x(record.epoch), y(value))
            for number, (record, value) in enumerate(zip(history, values, strict=True))
            if value is not None and isfinite(value) and (number % stride == 0 or number == len(history) - 1)
        ]
        if pairs:
            lines.append(Line(name, " ".join(f"{one:g},{other:g}" for one, other in pairs), style, pairs[-1]))
    epochs = sorted({round(first + (last - first) * share / 4) for share in range(5)})
    best = x(best_epoch) if first <= best_epoch <= last else None
    ticks = tuple(Tick(y(value), f"{value:g}") for value in y_values)
    return LineChart(tuple(lines), tuple(Tick(x(epoch), str(epoch)) for epoch in epochs), ticks, best, left_out)


def _moved_most(names: Sequence[str], before: Dice, after: Dice, most: int) -> list[str]:
    """At most so many of the names, in their own order."""
    if len(names) <= most:
        return list(names)

    def moved(name: str) -> float:
        old, new = before.get(name), after.get(name)
        return -1.0 if old is None or new is None else abs(new - old)

    kept = set(sorted(names, key=moved, reverse=True)[:most])
    return [name for name in names if name in kept]


def _floor_of(values: Sequence[float]) -> float:
    """Where an axis of Dice that ends at 1 begins: a tenth below all values, 0.8 at most."""
    return max(0.0, min(0.8, floor((min(values, default=0.0) - 0.02) * 10) / 10))


def _round_values(low: float, high: float) -> list[float]:
    """Three to six round numbers that span low to high."""
    rough = (high - low) / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = floor(low / step + 1e-6), ceil(high / step - 1e-6)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _present(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(value for value in values if value is not None)
