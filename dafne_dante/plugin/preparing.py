"""Where a run keeps the cases that it has prepared.

Invariants: the disk is used for cases that the site keeps, beside them and sealed as they are; of studies in a folder
that somebody names no copy is left anywhere. A store that cannot be opened costs time, never the run.
"""

from collections.abc import Callable

from dafne_dante.annotations.store.opening import open_case_store, store_exists
from dafne_dante.annotations.store.prepared_files import PreparedFiles
from dafne_dante.config import Settings
from dafne_dante.errors import StorageError, TrustError
from dafne_dante.models.planning.free_memory import free_bytes
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.training.prepared_cache import PreparedCache

__all__ = ["cache_for"]

_SHARE = 0.25
"""Of the memory that is free once the cases are read; half of it is for the steps of the training."""


def cache_for(
    request: CaseRequest, settings: Settings, *, say: Callable[[str], None], processes: int = 1
) -> PreparedCache:  # fmt: skip
    """The cache for cases that were collected by this request.

    Args:
        say: gets what a person should know, once.
        processes: on this machine, which share its memory.
    """
    free = free_bytes()
    most = None if free is None else int(_SHARE * free / processes)
    return PreparedCache(_files(request, settings, say), max_memory_bytes=most, say=say)


def _files(request: CaseRequest, settings: Settings, say: Callable[[str], None]) -> PreparedFiles | None:
    if request.paths or not settings.annotations.keep_prepared_gib:
        return None
    try:
        return open_case_store(settings, say=say).prepared if store_exists(settings) else None
    except (StorageError, TrustError) as error:
        say(f"prepared cases are held in memory only: {error}")
        return None
