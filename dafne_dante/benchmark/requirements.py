"""What the methods promise, and whether the outcomes keep it (issue: adaptation).

Terms: a promise is about every setting (target, shots, pretraining); it is kept in those where the means over seeds say
so. "The better of the two" is LoRA or gradual unfreezing, whichever has the higher mean there.

A promise of an average is about the mean over settings, so that there is one figure of it.

Invariant: a promise that nothing was measured for is no kept promise; it is not told.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dafne_dante.adaptation.method import METHOD_NAMES
from dafne_dante.benchmark.comparison import Row
from dafne_dante.benchmark.protocol import shots_in_words
from dafne_dante.benchmark.summary import BASELINE, Setting, Summary, mean_of

__all__ = ["Promise", "check_promises"]

_PAIR = ("lora", "gradual-unfreezing")
_DANTE_PAIR = ("dante-lora", "dante-gradual-unfreezing")
_FEW = (1, 2)
_MORE_THAN_NOTHING = math.ulp(0.0)
_AUTO = "auto"
_AUTO_BELOW = 0.01

_Methods = Mapping[str, Summary]
_Measure = Callable[[_Methods], float | None]


@dataclass(frozen=True)
class Promise:
    """A promise in words, in how many settings it is kept, and the worst setting with its figure."""

    words: str
    kept: int
    settings: int
    worst: str


def check_promises(summaries: Mapping[Setting, _Methods]) -> list[Promise]:
    """Every promise that something was measured for."""
    promises = [
        (
            "LoRA is above scratch in Dice", _MORE_THAN_NOTHING, _everywhere,
            lambda methods: _above(methods, "lora", BASELINE),
        ),
        (
            "gradual unfreezing is above scratch in Dice", _MORE_THAN_NOTHING, _everywhere,
            lambda methods: _above(methods, "gradual-unfreezing", BASELINE),
        ),
        ("the better of the two is at most 0.005 below full fine-tuning", -0.005, _everywhere, _better_above_full),
        ("few-shot 1 and 2: the better of the two is 0.10 above scratch", 0.10, _few, _better_above_scratch),
        ("63.6 % fewer epochs to 85 % of the common peak", 0.636, _everywhere, _epochs_saved),
        ("70 % fewer seconds to 85 % of the common peak", 0.70, _everywhere, _seconds_saved),
        ("few-shot: auto forgets at most 0.03 of the source's Dice", -0.03, _few_or_four, _kept_of_source),
        ("Dice of the better of the two is not below that of the better of Dante's", 0.0, _everywhere, _above_dante),
        ("two thirds fewer seconds to 85 % of the common peak than Dante's quicker one", 2 / 3, _everywhere, _sooner),
        ("the larger delta is at most 5 % of what Dante would upload", -0.05, _everywhere, _bytes_of_dante),
    ]  # fmt: skip
    found = [_check(words, least, measure, _where(summaries, holds)) for words, least, holds, measure in promises]
    return [promise for promise in (*found, _auto_on_average(summaries)) if promise.settings]


def _auto_on_average(summaries: Mapping[Setting, _Methods]) -> Promise:
    """That `auto` is hardly below any fixed method of ours, over the settings in which both were measured."""
    names = {name for methods in summaries.values() for name in methods if name != _AUTO and name in METHOD_NAMES}
    means = {
        name: _rounded(math.fsum(found) / len(found))
        for name in sorted(names)
        if (found := [value for one in summaries.values() if (value := _above(one, _AUTO, name)) is not None])
    }
    words = f"auto is at most {_AUTO_BELOW} below any fixed method in Dice, on average"
    if not means:
        return Promise(words, 0, 0, "")
    worst = min(means, key=lambda name: means[name])
    return Promise(words, int(means[worst] >= -_AUTO_BELOW), 1, f"{means[worst]:+.3f} ({worst})")


def _check(words: str, least: float, measure: _Measure, settings: Mapping[Setting, _Methods]) -> Promise:
    measured = {setting: measure(methods) for setting, methods in settings.items()}
    values = {setting: _rounded(value) for setting, value in measured.items() if value is not None}
    worst = min(values, key=lambda setting: values[setting], default=None)
    told = ""
    if worst is not None:
        told = f"{values[worst]:+.3f} ({worst.target}, {shots_in_words(worst.shots)}, {worst.pretraining})"
    return Promise(words, sum(value >= least for value in values.values()), len(values), told)


def _rounded(value: float) -> float:
    """Without what binary fractions add to a difference: 0.8 - 0.77 is 0.03."""
    return round(value, 9) + 0.0


def _where(summaries: Mapping[Setting, _Methods], holds: Callable[[Setting], bool]) -> dict[Setting, _Methods]:
    return {setting: methods for setting, methods in summaries.items() if holds(setting)}


def _everywhere(setting: Setting) -> bool:
    return True


def _few(setting: Setting) -> bool:
    return setting.shots in _FEW


def _few_or_four(setting: Setting) -> bool:
    return setting.shots is not None


def _above(methods: _Methods, one: str, other: str) -> float | None:
    dice = [methods[name].dice if name in methods else None for name in (one, other)]
    return None if dice[0] is None or dice[1] is None else dice[0].mean - dice[1].mean


def _better(methods: _Methods, pair: tuple[str, str] = _PAIR) -> str | None:
    known = {name: dice.mean for name in pair if name in methods and (dice := methods[name].dice) is not None}
    return max(known, key=lambda name: known[name], default=None)


def _better_above_full(methods: _Methods) -> float | None:
    better = _better(methods)
    return None if better is None else _above(methods, better, "full")


def _better_above_scratch(methods: _Methods) -> float | None:
    better = _better(methods)
    return None if better is None else _above(methods, better, BASELINE)


def _epochs_saved(methods: _Methods) -> float | None:
    return max((one.epochs_saved.mean for one in _pair(methods) if one.epochs_saved), default=None)


def _seconds_saved(methods: _Methods) -> float | None:
    return max((one.seconds_saved.mean for one in _pair(methods) if one.seconds_saved), default=None)


def _pair(methods: _Methods, pair: tuple[str, str] = _PAIR) -> Iterator[Summary]:
    return (methods[name] for name in pair if name in methods)


def _above_dante(methods: _Methods) -> float | None:
    better, other = _better(methods), _better(methods, _DANTE_PAIR)
    return None if better is None or other is None else _above(methods, better, other)


def _sooner(methods: _Methods) -> float | None:
    """The share of the quicker one's seconds; who does not reach the peak counts with all that it took."""
    ours, theirs = (
        min((mean.mean for one in _pair(methods, pair) if (mean := mean_of(one.rows, _seconds))), default=None)
        for pair in (_PAIR, _DANTE_PAIR)
    )
    return None if ours is None or not theirs else 1 - ours / theirs


def _seconds(row: Row) -> float:
    return (row.reached or row.outcome.curve[-1]).processor_seconds


def _bytes_of_dante(methods: _Methods) -> float | None:
    ours, theirs = (
        [row.outcome.sent_bytes for one in _pair(methods, pair) for row in one.rows] for pair in (_PAIR, _DANTE_PAIR)
    )
    return -max(ours) / min(theirs) if ours and theirs else None


def _kept_of_source(methods: _Methods) -> float | None:
    if _AUTO not in methods:
        return None
    forgotten = mean_of(methods[_AUTO].rows, lambda row: row.forgotten)
    return None if forgotten is None else -forgotten.mean
