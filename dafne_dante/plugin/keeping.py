"""Studies that a person named -> the site's case store, and an account of what was kept, what was left, and why.

Invariants: one study is in memory at a time; every study keeps the names of its own labels, whatever others have; of
several studies of one image in one call the first is kept, for nobody has said which is the correction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.reading import Reading, read_case
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.annotations.store.opening import limits_of, store_folder, store_key
from dafne_dante.annotations.store.records import Added
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.annotations.study import Left, Study
from dafne_dante.config import Settings
from dafne_dante.errors import AnnotationError, NotEnoughCasesError, StorageError
from dafne_dante.plugin.collecting import reading_of

__all__ = ["Kept", "keep_studies"]


@dataclass(frozen=True)
class Kept:
    """What became of the studies.

    Attributes:
        added: name for the screen, and what the store did.
        left: what was looked at and not kept.
        dropped: older cases that are gone now, because the store is limited.
    """

    added: tuple[tuple[str, Added], ...]
    left: tuple[Left, ...]
    dropped: tuple[str, ...]


def keep_studies(
    paths: Sequence[Path],
    settings: Settings,
    *,
    say: Callable[[str], None],
    labels: Sequence[str] | None = None,
    series: str | None = None,
) -> Kept:
    """Read every labelled study in the paths and keep it.

    Args:
        paths: folders and files, of any kind and mixed.
        settings: the site's.
        say: gets what a person should know, once: where the key of the store is.
        labels: take these only; None for each study's own.
        series: the DICOM series to use, by UID or description.

    Raises:
        NotEnoughCasesError: nothing could be kept; the message holds the first reason.
        StorageError: the store refuses; what was kept before stays.
        TrustError: the key of the store is lost or not the right one.
    """
    found = find_studies_in(paths, series=series)
    if not found.studies:
        raise _nothing(found.left)
    key = store_key(settings, say=say)
    store = CaseStore(store_folder(settings), key, limits=limits_of(settings))
    reading = reading_of(settings.annotations, key.case_ids)
    added: dict[str, tuple[str, Added]] = {}
    left = list(found.left)
    dropped: list[str] = []
    for study in found.studies:
        case = _read(study, labels, reading, left)
        if case is None:
            continue
        if case.case_id in added:
            left.append(Left(study.name, f"expected every image once, found that of {added[case.case_id][0]} again"))
            continue
        done = store.add(case)
        added[case.case_id] = (study.name, done)
        dropped += done.dropped
    if not added:
        raise _nothing(left)
    return Kept(tuple(added.values()), tuple(left), tuple(dropped))


def _read(study: Study, labels: Sequence[str] | None, reading: Reading, left: list[Left]) -> Case | None:
    """The case; None when it cannot be used, and the reason in `left`."""
    try:
        return read_case(study, labels, reading)[0]
    except (AnnotationError, StorageError) as error:
        left.append(Left(study.name, str(error)))
        return None


def _nothing(left: Sequence[Left]) -> NotEnoughCasesError:
    reason = f"left {left[0].name}: {left[0].reason}" if left else "found none; choose another folder"
    return NotEnoughCasesError(f"expected labelled studies that can be kept, {reason}")
