"""A domain: labelled cases of one kind, and which person each of them shows.

Terms: a *subject* is a person by a name that means nothing outside; who has the same name in two domains is the same
person.

Invariants: all cases of a domain have its labels; a subject may have several cases, and they stay together wherever
subjects are divided.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dafne_dante.annotations.case import Case
from dafne_dante.errors import AnnotationError, IncompatibleModelError

__all__ = ["Domain"]


@dataclass(frozen=True, eq=False)
class Domain:
    """Cases of one kind.

    Attributes:
        name: of letters, digits and dashes, as in a table.
        labels: of every case, in this order.
        cases: `subjects[i]` is who `cases[i]` shows.

    Raises:
        AnnotationError: not one subject for each case.
        IncompatibleModelError: a case has other labels.
    """

    name: str
    labels: tuple[str, ...]
    cases: Sequence[Case]
    subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.cases) != len(self.subjects):
            raise AnnotationError(
                f"expected one subject for each case, found {len(self.subjects)} for {len(self.cases)} cases"
            )
        other = next((case for case in self.cases if case.labels != self.labels), None)
        if other is not None:
            raise IncompatibleModelError(
                f"expected cases of {self.name} labelled {', '.join(self.labels)}, found {', '.join(other.labels)}"
            )

    def of(self, subjects: Collection[str]) -> tuple[Case, ...]:
        """The cases of these subjects, in the order of the domain."""
        return tuple(case for case, subject in zip(self.cases, self.subjects, strict=True) if subject in subjects)

    def without(self, subjects: Collection[str]) -> "Domain":
        """The domain with these subjects left out."""
        kept = [index for index, subject in enumerate(self.subjects) if subject not in subjects]
        return Domain(
            self.name, self.labels, [self.cases[index] for index in kept], tuple(self.subjects[index] for index in kept)
        )
