"""The folder of a benchmark: what was agreed, the base models, the finished cells.

    benchmark.json   effort, network, software, recipes, cases    results.csv, curves.csv, results.md, *.png
    base/            a model a pretraining and seed           cells/   a file a finished cell
    hardware/        which numerics are fastest here          work/    of cells that run
    clock.json       how long all runs took

Invariants: a cell is finished when its file is there, and such a file is whole; cells of one folder had the same
effort, network, source, software and recipes, and a target's the same cases, or the run is refused; one run at a time.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dafne_dante.benchmark.outcome import Outcome, read_outcome, write_outcome
from dafne_dante.benchmark.protocol import Cell, Effort
from dafne_dante.benchmark.recipes import recipes_digest, software_words
from dafne_dante.benchmark.splits import Pretraining
from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.models.plan import ModelPlan, plan_to_net_metadata

__all__ = ["Agreement", "BenchmarkFolder"]

_AGREED = "benchmark.json"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Agreement:
    """What all cells of a folder have in common; digests are of cases with their labels, `targets` by name.

    `software` are the versions that train, `recipes` a digest of what they decide by themselves (see `recipes`).
    """

    effort: Effort
    plan: ModelPlan
    source: str
    targets: Mapping[str, str]
    software: str = field(default_factory=software_words)
    recipes: str = field(default_factory=recipes_digest)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        plan = json.loads(json.dumps(plan_to_net_metadata(self.plan)))
        return {
            "effort": asdict(self.effort),
            "plan": plan,
            "source": self.source,
            "targets": dict(self.targets),
            "software": self.software,
            "recipes": self.recipes,
        }


@dataclass(frozen=True)
class BenchmarkFolder:
    """The folder at `path`."""

    path: Path

    @property
    def cache(self) -> Path:
        """Where numerics are remembered, and what bases can do."""
        return self.path / "hardware"

    @property
    def clock(self) -> Path:
        """Where it is remembered how long all runs took."""
        return self.path / "clock.json"

    def base(self, pretraining: Pretraining, seed: int) -> Path:
        """The base model's file."""
        return make_folder(self.path / "base") / f"{pretraining}_{seed}.model"

    def work(self, cell: Cell) -> Path:
        """A folder for the cell's runner."""
        return self.path / "work" / cell.name

    def clear_work(self) -> None:
        """Remove what runners left, also those of a run that was killed."""
        shutil.rmtree(self.path / "work", ignore_errors=True)

    def keep(self, cell: Cell, outcome: Outcome) -> None:
        """Finish the cell; StorageError where the disk refuses."""
        make_folder(self.path / "cells")
        write_outcome(self._cell(cell), outcome)

    def outcomes(self) -> dict[Cell, Outcome]:
        """All finished cells, in the order of their names.

        Raises:
            SettingsError, StorageError: a file there is no finished cell.
        """
        files = sorted((self.path / "cells").glob("[!.]*.json"))
        return {Cell.from_name(file.stem): read_outcome(file) for file in files}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one run; SettingsError where another run has it."""
        make_folder(self.path)
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise SettingsError(
                "expected a folder that no other run writes into; wait for it, or choose another"
            ) from error
        except OSError as error:
            raise StorageError(f"cannot use {self.path.name}: {error.strerror or type(error).__name__}") from error
        try:
            yield
        finally:
            lock.release()

    def agree(self, agreement: Agreement) -> None:
        """Note what the cells have in common; targets may be added later.

        Raises:
            SettingsError: the folder's cells were made otherwise, or it is no benchmark's.
        """
        file, wanted = self.path / _AGREED, agreement.as_json()
        if file.exists():
            known = self._agreed(file)
            targets = {**known["targets"], **wanted["targets"]}
            different = [name for name in wanted if name != "targets" and known.get(name) != wanted[name]]
            different += [name for name in known["targets"] if targets[name] != known["targets"][name]]
            if different:
                raise SettingsError(
                    f"expected the same benchmark as the one in {self.path.name}, found another ({different[0]}); "
                    "choose another folder"
                )
            wanted["targets"] = targets
        elif any(one for one in self.path.iterdir() if one.name != ".lock"):
            raise SettingsError(f"expected {self.path.name} to be new, empty or a benchmark's folder; choose another")
        write_atomically(file, (json.dumps(wanted, indent=1, sort_keys=True) + "\n").encode())

    def _agreed(self, file: Path) -> dict[str, Any]:
        try:
            known = json.loads(read_bounded(file, max_bytes=_MAX_BYTES))
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"expected JSON in {file.name}, found something else; choose another folder") from error
        if not isinstance(known, dict) or not isinstance(known.get("targets"), dict):
            raise SettingsError(f"expected a benchmark's {file.name}, found something else; choose another folder")
        return known

    def _cell(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.name}.json"
