"""Rows of several seeds taken together: one summary for a target, shots, pretraining and method.

Invariants: intervals are over seeds, and over nothing else; savings are taken seed by seed, then averaged.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dafne_dante.benchmark.comparison import Row, grouped, saved
from dafne_dante.benchmark.intervals import Interval, mean_interval
from dafne_dante.benchmark.protocol import shots_in_words
from dafne_dante.benchmark.splits import Pretraining

__all__ = ["BASELINE", "Setting", "Summary", "in_order", "mean_of", "summaries_as_json", "summarise"]

BASELINE = "scratch"
_ORDER = ("scratch", "full", "lora", "gradual-unfreezing", "head", "norm", "auto")


class Setting(NamedTuple):
    """What groups of several seeds have in common."""

    target: str
    shots: int | None
    pretraining: Pretraining


@dataclass(frozen=True)
class Summary:
    """A method in a setting.

    Attributes:
        rows: one a seed.
        dice: on test cases.
        epochs_to_85, seconds_to_85: over the seeds that reached the common peak; seconds of one thread's work.
        epochs_saved, seconds_saved: shares, against training from scratch.
        bounds: ≥ or ≤ or both, where some seeds' savings are bounds (see `comparison`).
    """

    setting: Setting
    method: str
    rows: tuple[Row, ...]
    dice: Interval | None
    epochs_to_85: Interval | None
    seconds_to_85: Interval | None
    epochs_saved: Interval | None
    seconds_saved: Interval | None
    bounds: str

    @property
    def reached(self) -> int:
        """Seeds in which the method reached 85 % of the common peak."""
        return sum(row.reached is not None for row in self.rows)


def summarise(rows: Iterable[Row]) -> dict[Setting, dict[str, Summary]]:
    """By setting and method; settings in the order of the rows, methods in that of tables."""
    rows = list(rows)
    groups = grouped(rows)
    found: dict[Setting, dict[str, list[Row]]] = {}
    for row in rows:
        setting = Setting(row.group.target, row.group.shots, row.group.pretraining)
        found.setdefault(setting, {}).setdefault(row.method, []).append(row)
    scratch = {group: methods[BASELINE] for group, methods in groups.items() if BASELINE in methods}
    return {
        setting: {
            name: _summary(setting, name, methods[name], [scratch.get(row.group) for row in methods[name]])
            for name in in_order(methods)
        }
        for setting, methods in found.items()
    }


def in_order(methods: Iterable[str]) -> list[str]:
    """The methods in the order of tables: those we know, then others by name."""
    return sorted(set(methods), key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def mean_of(rows: Sequence[Row], value: Callable[[Row], float | None]) -> Interval | None:
    """Mean and interval of something that rows have."""
    return mean_interval(value(row) for row in rows)


def summaries_as_json(rows: Iterable[Row]) -> dict[str, Any]:
    """The object that `benchmark --json` prints: one entry a setting and method; null where nothing was measured."""
    entries = [
        {
            "target": setting.target,
            "shots": shots_in_words(setting.shots),
            "pretraining": setting.pretraining,
            "method": name,
            "seeds": len(one.rows),
            "reached": one.reached,
            "dice": _plain(one.dice),
            "epochs_to_85": _plain(one.epochs_to_85),
            "processor_seconds_to_85": _plain(one.seconds_to_85),
            "epochs_saved": _plain(one.epochs_saved),
            "processor_seconds_saved": _plain(one.seconds_saved),
            "sent_bytes": _plain(mean_of(one.rows, lambda row: row.outcome.sent_bytes)),
            "forgotten": _plain(mean_of(one.rows, lambda row: row.forgotten)),
        }
        for setting, methods in summarise(rows).items()
        for name, one in methods.items()
    ]
    return {"results": entries}


def _plain(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else {"mean": interval.mean, "half_width": interval.half_width}


def _summary(setting: Setting, method: str, rows: Sequence[Row], scratch: Sequence[Row | None]) -> Summary:
    savings = [saved(row, other) if other else None for row, other in zip(rows, scratch, strict=True)]
    return Summary(
        setting=setting,
        method=method,
        rows=tuple(rows),
        dice=mean_of(rows, lambda row: row.dice),
        epochs_to_85=mean_of(rows, lambda row: float(row.reached.epoch) if row.reached else None),
        seconds_to_85=mean_of(rows, lambda row: row.reached.processor_seconds if row.reached else None),
        epochs_saved=mean_interval(one.epochs if one else None for one in savings),
        seconds_saved=mean_interval(one.processor_seconds if one else None for one in savings),
        bounds="".join(sorted({one.bound for one in savings if one})),
    )
