"""How long a benchmark took by the clock on the wall, over all runs that went on in its folder.

Invariants: what a run took is written down whenever something was finished, so that of a run that was killed only its
unfinished trainings are missing; a file that cannot be understood counts as no time, for nothing is decided by it.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from dafne_dante.durable import read_bounded, write_atomically

__all__ = ["Clock", "WallTime"]

_MAX_BYTES = 1 << 12


@dataclass(frozen=True)
class WallTime:
    """Seconds of all runs together, and how many runs there were."""

    seconds: float
    runs: int

    @property
    def words(self) -> str:
        """For a person."""
        return f"{self.seconds:,.0f} s by the clock, in {self.runs} run{'' if self.runs == 1 else 's'}"


class Clock:
    """Runs from when it is made; `path` is the file that remembers the runs before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = _read(path)
        self._begin = time.perf_counter()

    def note(self) -> WallTime:
        """Write down what has passed; StorageError where the disk refuses."""
        seconds = self._before.seconds + time.perf_counter() - self._begin
        now = replace(self._before, seconds=seconds, runs=self._before.runs + 1)
        write_atomically(self._path, (json.dumps({"seconds": now.seconds, "runs": now.runs}) + "\n").encode())
        return now


def _read(path: Path) -> WallTime:
    if not path.exists():
        return WallTime(0.0, 0)
    try:
        found = json.loads(read_bounded(path, max_bytes=_MAX_BYTES))
        return WallTime(max(0.0, float(found["seconds"])), max(0, int(found["runs"])))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return WallTime(0.0, 0)
