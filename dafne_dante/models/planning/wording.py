"""Numbers as a person reads them, for the reasons of a plan."""

from collections.abc import Iterable

__all__ = ["AXES", "gigabytes", "number", "times"]

AXES = ("Z", "X", "Y")
"""Names of a volume's axes in a plan's order; Z runs through the slices."""


def number(value: float) -> str:
    """At most three figures that matter: 5, 0.5, 1.25."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def times(values: Iterable[float]) -> str:
    """Sizes along the axes: 16 x 96 x 96."""
    return " x ".join(number(value) for value in values)


def gigabytes(size_bytes: float) -> str:
    """1.25 GB; a gigabyte is 10^9 bytes."""
    return f"{size_bytes / 1e9:.2f} GB"
