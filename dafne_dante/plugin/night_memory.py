"""What is remembered of nightly runs: when the last one began, and how much of its window's time was used.

Invariants: what cannot be read is as nothing; a scheduler that calls often learns here, without loading anything heavy,
that it is not the time.
"""

import json
import math
from dataclasses import asdict, dataclass
from datetime import datetime

from dafne_dante.config import Settings
from dafne_dante.durable import read_bounded, write_atomically
from dafne_dante.errors import DanteError
from dafne_dante.plugin.jobs import jobs_folder
from dafne_dante.plugin.night import Window, window_at

__all__ = ["NightMemory", "is_time_for_a_run", "recall_night", "remember_night", "was_missed"]

_FILE = "nightly.json"
_MAX_BYTES = 4096


@dataclass(frozen=True)
class NightMemory:
    """The last run: seconds since 1970 when it began, and seconds that runs of its window have taken together."""

    begun_s: float
    used_s: float = 0.0

    def used_in(self, window: Window) -> float:
        """Seconds that runs of a window, or those that made up for it, have taken so far."""
        return self.used_s if self.begun_s >= window.begin.timestamp() else 0.0


def recall_night(settings: Settings) -> NightMemory | None:
    """What is remembered; None where no run was ever tried, or nothing can be told of it."""
    try:
        found = json.loads(read_bounded(jobs_folder(settings) / _FILE, max_bytes=_MAX_BYTES))
        memory = NightMemory(float(found["begun_s"]), max(0.0, float(found.get("used_s", 0.0))))
    except (DanteError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return memory if math.isfinite(memory.begun_s + memory.used_s) else None


def remember_night(settings: Settings, memory: NightMemory) -> None:
    """Keep it in the jobs' folder, which is there; StorageError where the disk refuses."""
    write_atomically(jobs_folder(settings) / _FILE, json.dumps(asdict(memory)).encode(), mode=0o600)


def was_missed(window: Window, memory: NightMemory | None) -> bool:
    """Whether a window is over in which no run began, though one was tried or done before it."""
    return not window.is_now and memory is not None and memory.begun_s < window.begin.timestamp()


def is_time_for_a_run(settings: Settings, now: datetime) -> bool:
    """Whether a run may have something to do: in its window, after one that was missed, or when none was ever tried."""
    window, memory = window_at(settings.nightly, now), recall_night(settings)
    return window.is_now or memory is None or was_missed(window, memory)
