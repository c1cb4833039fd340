"""Several sequences of prepared cases as one, without taking any case from where it lies.

A sequence of prepared cases may read them from a disk when they are asked for; a list of them all would be in memory.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import overload

from dafne_dante.training.prepared import PreparedCase

__all__ = ["JoinedCases"]


class JoinedCases(Sequence[PreparedCase]):
    """One sequence after the other; `turns` are the places to draw from, those of the i-th `times[i]` times."""

    def __init__(self, parts: Sequence[Sequence[PreparedCase]], times: Sequence[int] = ()) -> None:
        self._parts = tuple(parts)
        self._ends = list(accumulate(len(part) for part in self._parts))
        self.turns: list[int] = []
        """Places, each as often as it is to be drawn."""
        for part, end, count in zip(self._parts, self._ends, times or [1] * len(self._parts), strict=True):
            self.turns += [*range(end - len(part), end)] * count

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> PreparedCase: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PreparedCase]: ...
    def __getitem__(self, index: int | slice) -> PreparedCase | Sequence[PreparedCase]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]  # IndexError, and from the end where it is negative
        begin = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if place < end:
                return part[place - begin]
            begin = end
        raise IndexError(index)
