"""Which of the kept cases a model can learn from, told before a job is made, from their headers alone.

Terms: a case is *usable* when the job would take it: it has a name for the model's labels (for each of them, unless the
site's `missing_labels` says that what has no name is absent) and as many contrasts as the model expects. A *reason* is
what is wrong with the others.

Invariants: pure functions, no voxel is read; what is judged here is what `annotations.reading` and
`annotations.holdout` refuse later, with the same names and the same bounds.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dafne_dante.annotations.reading import Reading
from dafne_dante.annotations.store.contents import CaseHeader
from dafne_dante.annotations.suggestions import Suggestion, suggest_labels
from dafne_dante.models.plan import ModelPlan

__all__ = ["LeftOut", "UsableCases", "usable_cases"]

_LEAST_SLICES = 2


@dataclass(frozen=True)
class LeftOut:
    """Cases that are left for one reason.

    Attributes:
        cases: how many.
        missing: labels of the model that they have no name for.
        unknown: names of theirs that the model does not know.
        contrasts: how many they have, where the model expects another number; else 0.
    """

    cases: int
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    contrasts: int = 0


@dataclass(frozen=True)
class UsableCases:
    """What a model can learn from.

    Attributes:
        cases, slices: usable ones, and what is annotated on them.
        labels: those of the model that any usable case has a name for.
        left: the others, those with the most cases first.
        suggestions: one for each name, of any case, that the model does not know.
        more_studies: how many more are needed before a job can begin; 0 when it can.
        more_slices: how many more annotated slices of the only usable study would do as well; 0 for none.
    """

    cases: int = 0
    slices: int = 0
    labels: tuple[str, ...] = ()
    left: tuple[LeftOut, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    more_studies: int = 0
    more_slices: int = 0


def usable_cases(headers: Iterable[CaseHeader], plan: ModelPlan, reading: Reading) -> UsableCases:
    """Judge the kept cases as a job of a model of this plan would."""
    reasons: Counter[tuple[tuple[str, ...], tuple[str, ...], int]] = Counter()
    slices: list[int] = []
    values: set[int] = set()
    unknown: set[str] = set()
    for header in headers:
        found = reading.names.resolve(header.labels, plan.labels)
        unknown |= set(found.unknown)
        is_lacking = not found.values or (bool(found.missing) and not reading.missing_is_absent)
        contrasts = header.channels if header.channels != plan.in_channels else 0
        if is_lacking or contrasts:
            missing = found.missing if is_lacking else ()
            reasons[missing, found.unknown if is_lacking else (), contrasts] += 1
        else:
            slices.append(header.annotated_slices)
            values |= set(found.values.values())
    return UsableCases(
        cases=len(slices),
        slices=sum(slices),
        labels=tuple(label for value, label in enumerate(plan.labels, start=1) if value in values),
        left=tuple(LeftOut(count, *reason) for reason, count in reasons.most_common()),
        suggestions=suggest_labels(sorted(unknown), plan.labels),
        more_studies=_more_studies(slices),
        more_slices=_LEAST_SLICES - slices[0] if len(slices) == 1 and slices[0] < _LEAST_SLICES else 0,
    )


def _more_studies(slices: Sequence[int]) -> int:
    """One study with two annotated slices is enough to learn from and to hold out; a single slice needs company."""
    return 0 if len(slices) > 1 or (slices and slices[0] >= _LEAST_SLICES) else 1
