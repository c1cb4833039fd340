"""What was saved in a host -> the site's case store, and a job for the model that it was drawn with.

Invariants: the case is on the disk before the job is asked for; a job is asked for only when enough is new
(`[worker] after_slices`), so that saving the same masks twice improves nothing twice; saves with less add up; jobs for
corrections are put off by the queue (`debounce_s`).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.new_slices import new_slices
from dafne_dante.annotations.reading import read_case
from dafne_dante.annotations.store.opening import limits_of, store_folder, store_key
from dafne_dante.annotations.store.records import Added
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.annotations.study import Study
from dafne_dante.config import Settings
from dafne_dante.errors import StorageError
from dafne_dante.plugin.collecting import reading_of
from dafne_dante.plugin.job_states import Job, JobOptions
from dafne_dante.plugin.jobs import JobQueue

__all__ = ["KeptSave", "keep_save"]


@dataclass(frozen=True)
class KeptSave:
    """What a save came to.

    Attributes:
        added: what the store did.
        annotated: slices that count as annotated; `fresh` of them were not so in the version before.
        job: None where none is asked for, or more fresh slices are needed for one.
    """

    added: Added
    annotated: int
    job: Job | None
    fresh: int = 0


def keep_save(
    study: Study,
    model_type: str,
    settings: Settings,
    queue: JobQueue,
    *,
    options: JobOptions | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> KeptSave:
    """Keep the study as a case, and ask for a job of its model; slow, for a thread that does not paint.

    Args:
        model_type: "" for none, then no job is asked for and nothing is counted.
        options: of the job.
        say: gets what a person should know of the store's key.

    Raises:
        AnnotationError: the study cannot be read as a case, or nothing on it counts as annotated.
        TrustError: the key of the store is lost or not the right one.
        StorageError: the disk refuses.
        SettingsError: a model type that can be none.
    """
    key = store_key(settings, say=say)
    case, notes = read_case(study, None, reading_of(settings.annotations, key.case_ids))
    store = CaseStore(store_folder(settings), key, limits=limits_of(settings))
    fresh = new_slices(_before(store, case.case_id), case)
    added = store.add(case)
    if not model_type or added.outcome == "unchanged":
        return KeptSave(added, notes.annotated, None, 0)
    job = queue.add_correction(model_type, fresh, at_least=settings.worker.after_slices, options=options)
    return KeptSave(added, notes.annotated, job, fresh)


def _before(store: CaseStore, case_id: str) -> Case | None:
    """The version that is kept; None where there is none that can be read, then all of the new one is new."""
    with suppress(StorageError):
        return store.read(case_id) if store.holds(case_id) else None
    return None
