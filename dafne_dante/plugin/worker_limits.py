"""How little of the machine a worker takes: the lowest priority, few threads, bounded memory.

Invariants: each limit is set where the system has it, and none is an error where it has not. Memory is bounded where
there is no GPU only, since its driver maps more than the machine has.
"""

import os
import sys
from contextlib import suppress

import psutil
import torch

from dafne_dante.config import WorkerSettings

if sys.platform != "win32":
    import resource

__all__ = ["limit_this_process", "threads_for"]

_SHARE_OF_MEMORY = 0.75
_NICEST = 19


def threads_for(settings: WorkerSettings) -> int:
    """How many threads: what the settings say, else half of the cores."""
    return settings.threads or max(1, (os.cpu_count() or 2) // 2)


def limit_this_process(settings: WorkerSettings) -> None:
    """Be the last to get a core or the disk, and fail rather than push others out of memory."""
    process = psutil.Process()
    with suppress(psutil.Error, OSError, ValueError):
        if sys.platform == "win32":
            process.nice(psutil.IDLE_PRIORITY_CLASS)
        else:
            process.nice(_NICEST)
    with suppress(psutil.Error, OSError, ValueError, AttributeError):
        if sys.platform == "win32":
            process.ionice(psutil.IOPRIO_VERYLOW)
        else:
            process.ionice(psutil.IOPRIO_CLASS_IDLE)
    torch.set_num_threads(threads_for(settings))
    if not torch.cuda.is_available():
        _bound_memory(settings)


def _bound_memory(settings: WorkerSettings) -> None:
    if sys.platform == "win32":
        return
    wanted = int(settings.memory_gib * (1 << 30)) or int(_SHARE_OF_MEMORY * psutil.virtual_memory().total)
    with suppress(OSError, ValueError):
        _, hardest = resource.getrlimit(resource.RLIMIT_DATA)
        most = wanted if hardest == resource.RLIM_INFINITY else min(wanted, hardest)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hardest))
