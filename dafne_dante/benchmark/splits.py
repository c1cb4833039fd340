"""Who is trained on, who chooses the epoch, and who is tested, by subject.

Terms
- test subjects: looked at once, when everything is chosen. Selection subjects: decide which epoch remains.
- shots: how many of the training subjects are used; None for all of them ("full").
- pretraining: "rich" learns from all of the source's training subjects, "small" from the first two.

Invariants: no subject is in two parts, across the source and all targets; the test subjects follow from the names
alone, so that nobody who chooses an epoch, or a default, in one seed is tested in another; the other parts follow from
the seed and the names; test and selection are the same whatever the shots and the method; one shot's subject is among
those of two, and so on.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.benchmark.domain import Domain
from dafne_dante.errors import NotEnoughCasesError

__all__ = ["PRETRAININGS", "Parts", "Pretraining", "Split", "divide_subjects", "most_shots", "separate", "split_cases"]

Pretraining = Literal["small", "rich"]
PRETRAININGS: tuple[Pretraining, ...] = ("small", "rich")

_TEST_SHARE = 0.3
_SELECTION_SHARE = 0.15
_SMALL = 2
_FEWEST = 3


@dataclass(frozen=True)
class Parts:
    """A domain's subjects, each in one part."""

    training: tuple[str, ...]
    selection: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, pretraining: Pretraining) -> tuple[str, ...]:
        """The training subjects of a source that a pretraining learns from."""
        return self.training[:_SMALL] if pretraining == "small" else self.training


@dataclass(frozen=True, eq=False)
class Split:
    """The cases of one cell.

    Attributes:
        training, selection, test: of the target.
        source_test: of the source, for what is forgotten.
        replay: of the source, which every base learned from; what an operator may ship with a model.
        subjects: the target's parts, its training cut to the shots.
        source_subjects: the source's parts, its training cut to the pretraining.
    """

    training: tuple[Case, ...]
    selection: tuple[Case, ...]
    test: tuple[Case, ...]
    source_test: tuple[Case, ...]
    replay: tuple[Case, ...]
    subjects: Parts
    source_subjects: Parts


def separate(source: Domain, targets: Sequence[Domain]) -> Domain:
    """The source without anybody who is in a target; NotEnoughCasesError where too few remain."""
    shared = {subject for target in targets for subject in target.subjects}
    alone = source.without(shared)
    if len(set(alone.subjects)) < _FEWEST:
        raise NotEnoughCasesError(
            f"expected at least {_FEWEST} subjects of {source.name} who are in no target, "
            f"found {len(set(alone.subjects))}; add studies"
        )
    return alone


def divide_subjects(domain: Domain, seed: int) -> Parts:
    """Three tenths test, whatever the seed, 15 % selection, at least one each, the rest trains.

    Raises:
        NotEnoughCasesError: fewer than three subjects.
    """
    names = sorted(set(domain.subjects))
    if len(names) < _FEWEST:
        raise NotEnoughCasesError(
            f"expected at least {_FEWEST} subjects in {domain.name}, to train, to select and to test, "
            f"found {len(names)}; add studies"
        )
    # The names themselves give the order: domains of the same people are divided alike.
    people = zlib.crc32("\n".join(names).encode())
    drawn = [names[index] for index in np.random.default_rng(people).permutation(len(names))]
    test = max(1, round(_TEST_SHARE * len(names)))
    selection = max(1, round(_SELECTION_SHARE * len(names)))
    random = np.random.default_rng([seed, people])
    others = [drawn[test:][index] for index in random.permutation(len(names) - test)]
    return Parts(tuple(others[selection:]), tuple(others[:selection]), tuple(drawn[:test]))


def most_shots(domain: Domain) -> int:
    """How many subjects train when all do; more shots than this minus one are no few shots."""
    return len(divide_subjects(domain, 0).training)


def split_cases(source: Domain, target: Domain, *, seed: int, shots: int | None, pretraining: Pretraining) -> Split:
    """The cases of a cell; `source` has nobody of a target, see `separate`.

    Raises:
        NotEnoughCasesError: fewer than three subjects in a domain, or fewer training subjects than shots.
    """
    parts, source_parts = divide_subjects(target, seed), divide_subjects(source, seed)
    if shots is not None and not 1 <= shots <= len(parts.training):
        raise NotEnoughCasesError(
            f"expected 1 to {len(parts.training)} shots of {target.name}, found {shots}; add studies or ask for fewer"
        )
    training = parts.training if shots is None else parts.training[:shots]
    return Split(
        training=_in_order(target, training),
        selection=target.of(parts.selection),
        test=target.of(parts.test),
        source_test=source.of(source_parts.test),
        replay=source.of(source_parts.of("small")),
        subjects=Parts(training, parts.selection, parts.test),
        source_subjects=Parts(source_parts.of(pretraining), source_parts.selection, source_parts.test),
    )


def _in_order(domain: Domain, subjects: Iterable[str]) -> tuple[Case, ...]:
    """The cases in the order of the subjects, so that fewer shots are the beginning of more."""
    return tuple(case for subject in subjects for case in domain.of({subject}))
