"""Means over seeds with their uncertainty."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from scipy import stats

__all__ = ["Interval", "mean_interval"]

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of `count` values, and half the width of its 95 % interval; None where one value says nothing of it."""

    mean: float
    half_width: float | None
    count: int

    def words(self, decimals: int = 3) -> str:
        """For a table, for example 0.812 ± 0.010."""
        text = f"{self.mean:.{decimals}f}"
        return text if self.half_width is None else f"{text} ± {self.half_width:.{decimals}f}"


def mean_interval(values: Iterable[float | None]) -> Interval | None:
    """Student's t interval of the values that exist; None where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return Interval(mean, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))
    quantile = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(known) - 1))
    return Interval(mean, quantile * deviation / math.sqrt(len(known)), len(known))
