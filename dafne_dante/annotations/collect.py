"""Studies that were found -> the cases to work with, and an account of what was taken, what was left, and why.

Invariants
- What is sound is taken, what is not is left with its reason; nothing is dropped in silence, and one bad file does
  not cost a site its other studies.
- Equal images are one study: of several, the first is taken and the others are left.
- All cases have the same labels and the same number of contrasts.
- Names are for the screen (see `study`); what may be written down has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.reading import CaseNotes, Reading, own_labels, read_case
from dafne_dante.annotations.study import Found, Left, Study
from dafne_dante.errors import AnnotationError, NotEnoughCasesError, StorageError

__all__ = ["Collection", "Taken", "collect", "sentences"]


@dataclass(frozen=True)
class Taken:
    """A study that became a case."""

    name: str
    case_id: str
    notes: CaseNotes


@dataclass(frozen=True, eq=False)
class Collection:
    """What a search came to, once read; `taken[i]` tells of `cases[i]`."""

    cases: tuple[Case, ...]
    taken: tuple[Taken, ...]
    left: tuple[Left, ...]


def collect(
    found: Found,
    labels: Sequence[str] | None = None,
    reading: Reading | None = None,
    *,
    contrasts: int | None = None,
    strict: bool = False,
) -> Collection:
    """Read all studies that were found.

    Args:
        found: what `search.find_studies_in` gives, or a store.
        labels: a model's, in its order; None for all that the studies have, sorted by name.
        reading: how the site wants them to be read.
        contrasts: channels that the model expects; None for as many as the first case has.
        strict: refuse everything when anything is left.

    Raises:
        NotEnoughCasesError: there is no study that can be used; the message holds the first reason.
        AnnotationError: `strict`, and something was left.
    """
    reading = reading or Reading()
    wanted = _all_labels(found.studies, reading) if labels is None else tuple(labels)
    cases: list[Case] = []
    taken: list[Taken] = []
    left = list(found.left)
    for study in found.studies:
        try:
            case, notes = read_case(study, wanted, reading)
            _check_fit(study, case, cases, contrasts)
        except (AnnotationError, StorageError) as error:
            left.append(Left(study.name, str(error)))
        else:
            cases.append(case)
            taken.append(Taken(study.name, case.case_id, notes))
    if strict and left:
        raise AnnotationError(f"expected to use everything, as --strict asks, left {_told(left)}")
    if not cases:
        raise NotEnoughCasesError(
            f"expected labelled studies that can be used, left {_told(left)}"
            if left
            else "expected labelled studies (NIfTI, DICOM or Dafne bundles), found none; choose another folder"
        )
    return Collection(tuple(cases), tuple(taken), tuple(left))


def sentences(collection: Collection) -> list[str]:
    """The account for the screen: one line for each study that was left or needs a remark, then the sums."""
    lines = [f"left {_one_line(left)}" for left in collection.left]
    for taken in collection.taken:
        lines += [f"took {taken.name}: {remark}" for remark in _remarks(taken.notes)]
    cases = "1 case" if len(collection.cases) == 1 else f"{len(collection.cases)} cases"
    return [*lines, f"took {cases}, left {len(collection.left)}"]


def _remarks(notes: CaseNotes) -> list[str]:
    remarks = list(notes.remarks)
    if notes.annotated < notes.slices:
        remarks.append(f"{notes.annotated} of {notes.slices} slices count as labelled, the others as unknown")
    if notes.unknown:
        remarks.append(f"left out {', '.join(notes.unknown)}, which the model does not know")
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


def _check_fit(study: Study, case: Case, cases: Sequence[Case], contrasts: int | None) -> None:
    """AnnotationError when the case cannot stand beside the others."""
    expected = contrasts or (cases[0].image.shape[0] if cases else case.image.shape[0])
    if case.image.shape[0] != expected:
        raise AnnotationError(f"{study.name}: expected {expected} contrasts, found {case.image.shape[0]}")
    if any(case.case_id == other.case_id for other in cases):
        raise AnnotationError(f"{study.name}: expected every image once, found one that was taken already")


def _told(left: Sequence[Left]) -> str:
    more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
    return f"{_one_line(left[0])}{more}"


def _one_line(left: Left) -> str:
    """The name once: most reasons begin with it."""
    return left.reason if left.reason.startswith((f"{left.name}:", f"{left.name}.")) else f"{left.name}: {left.reason}"
