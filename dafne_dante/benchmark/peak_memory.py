"""How much memory something takes at most, beyond what the process had before.

Terms: of a GPU, what torch has allocated there; else the resident memory of the process, as the system kept its highest
value. That value is of the whole life of a process, so that only a fresh process tells of what was done last.
"""

import sys
from types import TracebackType

import psutil
import torch

__all__ = ["PeakMemory"]

_KIB = 1024


class PeakMemory:
    """A context; afterwards `peak_bytes` is the most that was taken beyond the start, 0 where a peak lies before."""

    def __init__(self, device: torch.device) -> None:
        self.peak_bytes = 0
        self._device = device
        self._start = 0

    def __enter__(self) -> "PeakMemory":
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._start = torch.cuda.memory_allocated(self._device)
        else:
            self._start = int(psutil.Process().memory_info().rss)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cuda = self._device.type == "cuda"
        highest = torch.cuda.max_memory_allocated(self._device) if cuda else _highest_resident_bytes()
        self.peak_bytes = max(0, highest - self._start)


def _highest_resident_bytes() -> int:
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # noqa: PLC0415 (there is none on Windows)

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * _KIB
