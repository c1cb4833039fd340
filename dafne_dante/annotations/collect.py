"""Studies that were found -> the cases to work with, and an account of what was taken, what was left, and why.

Invariants
- What is sound is taken, what is not is left with its reason; nothing is dropped in silence, and one bad file does
  not cost a site its other studies.
- A dataset (a folder that somebody laid out as one, see `nifti`) says that all of it is sound: one fault in it leaves
  all of it, unless the person asks to skip faulty studies.
- Equal images are one study: of several, the first is taken and the others are left.
- All cases have the same labels and the same number of contrasts.
- Names are for the screen (see `study`); what may be written down has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.files import NiftiStudy
from dafne_dante.annotations.reading import CaseNotes, Reading, own_labels, read_case
from dafne_dante.annotations.study import Found, Left, Study
from dafne_dante.errors import AnnotationError, NotEnoughCasesError, StorageError

__all__ = ["Collection", "Survey", "Taken", "collect", "look_through", "sentences"]

_Seen = TypeVar("_Seen")


@dataclass(frozen=True)
class Taken:
    """A study that became a case; `dataset` is that of its folder, empty when it stands alone."""

    name: str
    case_id: str
    notes: CaseNotes
    dataset: str = ""


@dataclass(frozen=True, eq=False)
class Collection:
    """What a search came to, once read; `taken[i]` tells of `cases[i]`."""

    cases: tuple[Case, ...]
    taken: tuple[Taken, ...]
    left: tuple[Left, ...]


@dataclass(frozen=True, eq=False)
class Survey(Generic[_Seen]):
    """What looking through a search came to, without the cases; `taken[i]` tells of `seen[i]`."""

    seen: tuple[_Seen, ...]
    taken: tuple[Taken, ...]
    left: tuple[Left, ...]


def collect(
    found: Found,
    labels: Sequence[str] | None = None,
    reading: Reading | None = None,
    *,
    contrasts: int | None = None,
    skip_faulty: bool = False,
) -> Collection:
    """Read all studies that were found.

    Args:
        found: what `search.find_studies_in` gives, or a store.
        labels: a model's, in its order; None for all that the studies have, sorted by name.
        reading: how the site wants them to be read.
        contrasts: channels that the model expects; None for as many as the first case has.
        skip_faulty: leave single studies of a dataset instead of all of it.

    Raises:
        NotEnoughCasesError: there is no study that can be used; the message holds the first reason.
    """
    survey = look_through(found, lambda case: case, labels, reading, contrasts=contrasts, skip_faulty=skip_faulty)
    return Collection(survey.seen, survey.taken, survey.left)


def look_through(
    found: Found,
    look: Callable[[Case], _Seen],
    labels: Sequence[str] | None = None,
    reading: Reading | None = None,
    *,
    contrasts: int | None = None,
    skip_faulty: bool = False,
) -> Survey[_Seen]:
    """Read the studies one by one and keep only what `look` makes of each; arguments and errors as `collect`."""
    reading = reading or Reading()
    wanted = _all_labels(found.studies, reading) if labels is None else tuple(labels)
    cases: dict[str, tuple[_Seen, Taken]] = {}
    left = list(found.left)
    faulty = {one.dataset for one in left}
    for study in found.studies:
        dataset = _dataset(study)
        if dataset and dataset in faulty and not skip_faulty:
            continue
        try:
            seen, taken, contrasts = _look(study, look, wanted, reading, contrasts)
        except (AnnotationError, StorageError) as error:
            left.append(Left(study.name, str(error), dataset))
            faulty.add(dataset)
            continue
        if taken.case_id in cases:
            left.append(Left(study.name, "expected every image once, found one that was taken already"))
        else:
            cases[taken.case_id] = seen, taken
    kept = [one for one in cases.values() if skip_faulty or not one[1].dataset or one[1].dataset not in faulty]
    if not kept:
        raise NotEnoughCasesError(_nothing(left))
    left += _left_with_their_dataset(found.studies, left, set() if skip_faulty else faulty - {""})
    return Survey(tuple(seen for seen, _ in kept), tuple(taken for _, taken in kept), tuple(left))


def _look(
    study: Study, look: Callable[[Case], _Seen], labels: tuple[str, ...], reading: Reading, contrasts: int | None
) -> tuple[_Seen, Taken, int]:
    """What one study shows, its account and its number of contrasts; the case itself is gone when this returns."""
    case, notes = read_case(study, labels, reading)
    _check_contrasts(study, case, contrasts)
    return look(case), Taken(study.name, case.case_id, notes, _dataset(study)), case.image.shape[0]


def sentences(collection: Collection | Survey[Any]) -> list[str]:
    """The account for the screen: one line for each study that was left or needs a remark, then the sums."""
    lines = [f"left {_one_line(left)}" for left in collection.left]
    for taken in collection.taken:
        lines += [f"took {taken.name}: {remark}" for remark in _remarks(taken.notes)]
    cases = "1 case" if len(collection.taken) == 1 else f"{len(collection.taken)} cases"
    return [*lines, f"took {cases}, left {len(collection.left)}"]


def _remarks(notes: CaseNotes) -> list[str]:
    remarks = list(notes.remarks)
    if notes.annotated < notes.slices:
        remarks.append(f"{notes.annotated} of {notes.slices} slices count as labelled, the others as unknown")
    if notes.unknown:
        remarks.append(
            f"left out {', '.join(notes.unknown)}, which the model does not know"
            + (f" ({notes.hint})" if notes.hint else "")
        )
    if notes.absent:
        remarks.append(f"has no {', '.join(notes.absent)}, which counts as absent")
    return remarks


def _all_labels(studies: Sequence[Study], reading: Reading) -> tuple[str, ...]:
    """Every label of any study once, in the spelling that sorts first, by name as in stock Dafne."""
    spellings: dict[str, str] = {}
    for study in studies:
        for label in own_labels(study, reading.names):
            key = label_key(label)
            spellings[key] = min(label, spellings.get(key, label))
    return tuple(sorted(spellings.values()))


def _check_contrasts(study: Study, case: Case, expected: int | None) -> None:
    found = case.image.shape[0]
    if expected is not None and found != expected:
        raise AnnotationError(f"{study.name}: expected {expected} contrast(s), found {found}; export the others, too")


def _dataset(study: Study) -> str:
    """The dataset that a study belongs to; empty when it stands alone."""
    return study.dataset if isinstance(study, NiftiStudy) else ""


def _left_with_their_dataset(studies: Sequence[Study], left: Sequence[Left], faulty: set[str]) -> list[Left]:
    """One line for each dataset that had a fault, with the number of its sound or unread studies."""
    lines = []
    for dataset in sorted(faulty):
        others = sum(_dataset(study) == dataset for study in studies) - sum(one.dataset == dataset for one in left)
        if others > 0:
            lines.append(Left(dataset, f"{others} more of this dataset; correct it, or skip faulty studies", dataset))
    return lines


def _nothing(left: Sequence[Left]) -> str:
    if not left:
        return "expected labelled studies (NIfTI, DICOM or Dafne bundles), found none; choose another folder"
    more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
    return f"expected labelled studies that can be used, left {_one_line(left[0])}{more}"


def _one_line(left: Left) -> str:
    """The name once: most reasons begin with it, or with a file that is called after it."""
    first = left.reason.split(":")[0]
    return left.reason if first.startswith(left.name) and " " not in first else f"{left.name}: {left.reason}"
