"""From what a person named, or the site keeps, to the cases of a run, as the settings say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.collect import Collection, Survey, collect, look_through
from dafne_dante.annotations.labels import LabelNames
from dafne_dante.annotations.reading import Reading
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.annotations.store.opening import limits_of, store_exists, store_folder, store_key
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.annotations.store.stored import find_stored_studies
from dafne_dante.annotations.study import EmptySlices, Found
from dafne_dante.config import AnnotationSettings, Settings
from dafne_dante.errors import NotEnoughCasesError

__all__ = ["CaseRequest", "account", "collect_cases", "reading_of", "survey_cases"]

_Seen = TypeVar("_Seen")

_EMPTY_SLICES: dict[str, EmptySlices | None] = {"auto": None, "background": "background", "unknown": "unknown"}


@dataclass(frozen=True)
class CaseRequest:
    """Which labelled studies to use.

    Attributes:
        paths: folders and files, of any kind and mixed; none for the cases that the site keeps.
        series: the DICOM series to use, by UID or description; None for those that labels refer to.
        skip_faulty: leave single studies of a dataset instead of all of it.
        with_kept: beside what is named also the cases that the site keeps, so that earlier corrections are not
            forgotten; of equal images the named one counts.
    """

    paths: tuple[Path, ...] = ()
    series: str | None = None
    skip_faulty: bool = False
    with_kept: bool = False


def collect_cases(
    request: CaseRequest,
    settings: Settings,
    *,
    labels: Sequence[str] | None = None,
    contrasts: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Collection:
    """Find and read them; `say` gets what a person should know of the store's key.

    Raises:
        NotEnoughCasesError: nothing was named and the site keeps no case; or as for `annotations.collect.collect`.
        TrustError: the key of the site's store is lost or not the right one.
        StorageError: the store cannot be read.
    """
    found, reading = _find(request, settings, say)
    return collect(found, labels, reading, contrasts=contrasts, skip_faulty=request.skip_faulty)


def survey_cases(
    request: CaseRequest,
    settings: Settings,
    look: Callable[[Case], _Seen],
    *,
    say: Callable[[str], None] = lambda text: None,
) -> Survey[_Seen]:
    """What `look` makes of each case, of which one is held at a time; arguments and errors as collect_cases."""
    found, reading = _find(request, settings, say)
    return look_through(found, look, reading=reading, skip_faulty=request.skip_faulty)


def _find(request: CaseRequest, settings: Settings, say: Callable[[str], None]) -> tuple[Found, Reading]:
    wishes = settings.annotations
    named = find_studies_in(request.paths, series=request.series) if request.paths else Found()
    if request.paths and not (request.with_kept and store_exists(settings)):
        return named, reading_of(wishes)
    store, key = _kept(settings, say)
    return named + find_stored_studies(store), reading_of(wishes, key)


def _kept(settings: Settings, say: Callable[[str], None]) -> tuple[CaseStore, bytes]:
    """The site's store, which must be there, and the key of its case ids."""
    if not store_exists(settings):
        raise NotEnoughCasesError(
            "expected labelled studies, found none named and none kept; name a folder with --data, or fill the store: "
            "dafne-dante cases add FOLDER"
        )
    key = store_key(settings, say=say)
    return CaseStore(store_folder(settings), key, limits=limits_of(settings)), key.case_ids


def reading_of(settings: AnnotationSettings, key: bytes | None = None) -> Reading:
    """How the settings want studies to be read, with the site's key for case ids where they are kept."""
    return Reading(
        names=LabelNames(settings.labels, settings.ignore),
        empty_slices=_EMPTY_SLICES[settings.empty_slices],
        missing_is_absent=settings.missing_labels == "absent",
        key=key,
    )


def account(collection: Collection | Survey[Any]) -> dict[str, object]:
    """What was taken and left, as plain values for the screen: it names files and labels, so it is never kept."""
    return {
        "taken": [
            {
                "name": taken.name,
                "slices": taken.notes.slices,
                "annotated_slices": taken.notes.annotated,
                "unknown_labels": list(taken.notes.unknown),
                "absent_labels": list(taken.notes.absent),
                "remarks": list(taken.notes.remarks),
            }
            for taken in collection.taken
        ],
        "left": [{"name": left.name, "reason": left.reason} for left in collection.left],
    }
