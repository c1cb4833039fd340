"""The paper's protocol as a grid of cells (arXiv 2605.03602; SCIENCE.md section 1).

Terms
- cell: one training. Target domain, shots, pretraining, method and seed name it.
- group: the cells that differ in the method only; they have network, cases, batches, patches, epochs and seed alike.
- from nothing: a method that forgets the base. Its cell has no pretraining, and belongs to the groups of all of them.
- effort: how long is trained, equal for all methods.

Invariants: a cell's name is a file's name on every system; the order of a grid brings whole groups one after another.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dafne_dante.benchmark.splits import PRETRAININGS, Pretraining
from dafne_dante.errors import SettingsError

__all__ = ["FROM_NOTHING", "Cell", "Effort", "Grid", "Group", "check_name", "parse_shots", "shots_in_words"]

FROM_NOTHING = ("scratch", "dante-scratch")
_PARTS = 5
_MOST_DIGITS = 6
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,40}")


class Group(NamedTuple):
    """What the methods that are compared have in common."""

    target: str
    shots: int | None
    pretraining: Pretraining
    seed: int


@dataclass(frozen=True)
class Cell:
    """One training; None are all shots, and no pretraining."""

    target: str
    shots: int | None
    pretraining: Pretraining | None
    method: str
    seed: int

    @property
    def name(self) -> str:
        """The cell in one word, for example contrast_full_rich_lora_0."""
        return f"{self.target}_{shots_in_words(self.shots)}_{self.pretraining or 'none'}_{self.method}_{self.seed}"

    @staticmethod
    def from_name(name: str) -> "Cell":
        """The cell of this name; SettingsError where it is none."""
        parts = name.split("_")
        fits = len(parts) == _PARTS and all(_NAME.fullmatch(part) for part in parts)
        if not fits or parts[2] not in {"none", *PRETRAININGS} or not parts[4].isdecimal():
            raise SettingsError(f"expected the name of a cell, found {name[:60]!r}")
        pretraining = next((one for one in PRETRAININGS if one == parts[2]), None)
        return Cell(parts[0], parse_shots(parts[1]), pretraining, parts[3], int(parts[4]))

    def groups(self, pretrainings: Sequence[Pretraining]) -> list[Group]:
        """Those that the cell belongs to, of these pretrainings."""
        mine = [one for one in pretrainings if self.pretraining in {None, one}]
        return [Group(self.target, self.shots, one, self.seed) for one in mine]


@dataclass(frozen=True)
class Effort:
    """How long is trained.

    Attributes:
        epochs, steps_per_epoch, batch_size: of every cell.
        pretraining_epochs: of the base models, with as many steps as `train` takes.
    """

    epochs: int = 16
    steps_per_epoch: int = 6
    batch_size: int = 2
    pretraining_epochs: int = 40


@dataclass(frozen=True)
class Grid:
    """What is compared.

    Raises:
        SettingsError: nothing is left of an axis, or a name cannot be a file's.
    """

    targets: tuple[str, ...]
    methods: tuple[str, ...]
    shots: tuple[int | None, ...] = (None, 1, 2, 4)
    pretrainings: tuple[Pretraining, ...] = PRETRAININGS
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        for axis, values in vars(self).items():
            if not values or len(set(values)) != len(values):
                raise SettingsError(f"expected different {axis}, at least one, found {', '.join(map(str, values))}")
        for name in (*self.targets, *self.methods):
            check_name(name)

    def cells(self) -> Iterator[Cell]:
        """All cells, seed by seed, so that a run that is cut short has whole seeds."""
        for seed in self.seeds:
            for target in self.targets:
                for shots in self.shots:
                    yield from self._of(seed, target, shots)

    def _of(self, seed: int, target: str, shots: int | None) -> Iterator[Cell]:
        for method in self.methods:
            if method in FROM_NOTHING:
                yield Cell(target, shots, None, method, seed)
            else:
                yield from (Cell(target, shots, pretraining, method, seed) for pretraining in self.pretrainings)


def check_name(name: str) -> str:
    """The name of a target or a method; SettingsError where it is none for a file."""
    if not _NAME.fullmatch(name):
        raise SettingsError(f"expected a name of up to 41 letters, digits and dashes, found {name[:60]!r}")
    return name


def shots_in_words(shots: int | None) -> str:
    """As in tables and on the command line: full, 1, 2, ..."""
    return "full" if shots is None else str(shots)


def parse_shots(text: str) -> int | None:
    """The shots that `shots_in_words` gave; SettingsError for anything else."""
    if text == "full":
        return None
    if not text.isdecimal() or len(text) > _MOST_DIGITS or int(text) < 1:
        raise SettingsError(f"expected shots as full or a number from 1, found {text[:60]!r}")
    return int(text)
