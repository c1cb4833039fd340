"""What was saved in a host -> the site's case store, and a job for the model that it was drawn with.

Invariants: the case is on the disk before the job is asked for; a job is asked for only when something is new, so that
saving the same masks twice improves nothing twice; jobs for corrections are put off by the queue (`debounce_s`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from dafne_dante.annotations.reading import read_case
from dafne_dante.annotations.store.opening import limits_of, store_folder, store_key
from dafne_dante.annotations.store.records import Added
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.annotations.study import Study
from dafne_dante.config import Settings
from dafne_dante.plugin.collecting import reading_of
from dafne_dante.plugin.job_states import Job, JobOptions
from dafne_dante.plugin.jobs import JobQueue

__all__ = ["KeptSave", "keep_save"]


@dataclass(frozen=True)
class KeptSave:
    """What a save came to: what the store did, how many slices count as annotated, and the job, if any."""

    added: Added
    annotated: int
    job: Job | None


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
        model_type: "" for none, then no job is asked for.
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
    added = CaseStore(store_folder(settings), key, limits=limits_of(settings)).add(case)
    wanted = bool(model_type) and added.outcome != "unchanged"
    return KeptSave(added, notes.annotated, queue.add(model_type, "saved", options) if wanted else None)
