"""From what a person named, and what the settings say, to the cases of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.annotations.collect import Collection, collect
from dafne_dante.annotations.labels import LabelNames
from dafne_dante.annotations.reading import Reading
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.annotations.study import EmptySlices
from dafne_dante.config import AnnotationSettings

__all__ = ["CaseRequest", "account", "collect_cases", "reading_of"]

_EMPTY_SLICES: dict[str, EmptySlices | None] = {"auto": None, "background": "background", "unknown": "unknown"}


@dataclass(frozen=True)
class CaseRequest:
    """Which labelled studies to use.

    Attributes:
        paths: folders and files, of any kind and mixed.
        series: the DICOM series to use, by UID or description; None for those that labels refer to.
        skip_faulty: leave single studies of a dataset instead of all of it.
    """

    paths: tuple[Path, ...]
    series: str | None = None
    skip_faulty: bool = False


def collect_cases(
    request: CaseRequest,
    settings: AnnotationSettings,
    *,
    labels: Sequence[str] | None = None,
    contrasts: int | None = None,
) -> Collection:
    """Find and read them; arguments and errors as for `annotations.collect.collect`."""
    found = find_studies_in(request.paths, series=request.series)
    return collect(found, labels, reading_of(settings), contrasts=contrasts, skip_faulty=request.skip_faulty)


def reading_of(settings: AnnotationSettings, key: bytes | None = None) -> Reading:
    """How the settings want studies to be read, with the site's key for case ids where they are kept."""
    return Reading(
        names=LabelNames(settings.labels, settings.ignore),
        empty_slices=_EMPTY_SLICES[settings.empty_slices],
        missing_is_absent=settings.missing_labels == "absent",
        key=key,
    )


def account(collection: Collection) -> dict[str, object]:
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
