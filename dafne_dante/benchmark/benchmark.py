"""The whole benchmark on one page: agree, pretrain the bases, run the cells that are missing, tell what came out.

Invariants: a finished cell is never run again, and a run that was killed goes on with the others; results.csv and
curves.csv are up to date after every cell; a cell that fails costs no other, is told at the end, and is tried again by
the next run. What a cell comes to does not depend on which process ran it, or when.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.benchmark.beginning import note_beginning
from dafne_dante.benchmark.clock import Clock
from dafne_dante.benchmark.comparison import Row, make_rows
from dafne_dante.benchmark.dante_methods import DANTE_METHODS
from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.folder import Agreement, BenchmarkFolder
from dafne_dante.benchmark.outcome import Outcome, Runner
from dafne_dante.benchmark.plots import draw_plots
from dafne_dante.benchmark.pretraining import Lesson, lesson_for, pretrain
from dafne_dante.benchmark.protocol import Cell, Effort, Grid
from dafne_dante.benchmark.report import write_report
from dafne_dante.benchmark.runners import runner_for
from dafne_dante.benchmark.splits import Pretraining, Split, split_cases
from dafne_dante.benchmark.tables import write_curves, write_results
from dafne_dante.benchmark.workers import Task, run_tasks
from dafne_dante.durable import make_folder
from dafne_dante.errors import TrainingError
from dafne_dante.models.file import read_model
from dafne_dante.models.plan import ModelPlan
from dafne_dante.plugin.unfinished import digest_cases

__all__ = ["BenchmarkRequest", "run_benchmark", "run_cell"]


@dataclass(frozen=True, eq=False)
class BenchmarkRequest:
    """What to compare, on what, and where to.

    Attributes:
        source: shares nobody with a target, see `splits.separate`.
        targets: every target of the grid, by name.
        plan: of the base models, with the source's labels.
        jobs: processes at a time, one thread each.
        dante: the program `dante_train`, where methods of Dante's are compared.
    """

    out: Path
    grid: Grid
    effort: Effort
    source: Domain
    targets: Mapping[str, Domain]
    plan: ModelPlan
    jobs: int = 2
    dante: Path | None = None


def run_benchmark(request: BenchmarkRequest, *, tell: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Run what is missing, and write tables, report and plots of everything in the folder.

    Raises:
        SettingsError: an unknown method, or a folder that is in use or another benchmark's.
        NotEnoughCasesError: a domain cannot be divided as the grid says.
        TrainingError: cells failed; the others are finished.
        StorageError: the disk refuses.
    """
    folder = BenchmarkFolder(request.out)
    for method in request.grid.methods:
        runner_for(method, request.effort, folder.cache, request.dante)
    _check_shots(request)
    with folder.held():
        folder.agree(_agreement(request))
        clock = Clock(folder.clock)
        _pretrain(request, folder, tell)
        clock.note()
        outcomes = folder.outcomes()
        _note_beginnings(request, folder, outcomes, tell)
        clock.note()
        faults = _run_missing(request, folder, outcomes, clock, tell)
        folder.clear_work()
        rows = _write_tables(folder, outcomes)
        draw_plots(request.out, rows)
        write_report(request.out / "results.md", rows, request.effort, clock.note(), jobs=request.jobs)
    if faults:
        raise TrainingError(f"{len(faults)} cells failed, the others are in results.csv; first: {faults[0]}")
    return rows


def run_cell(runner: Runner, cell: Cell, split: Split, base: Path, folder: Path) -> Outcome:
    """What a process does for a cell; errors are the runner's."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        return runner.run(cell, split, read_model(base), make_folder(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_shots(request: BenchmarkRequest) -> None:
    """Divide once all that will be divided, before hours of training."""
    for cell in request.grid.cells():
        _split(request, cell)


def _agreement(request: BenchmarkRequest) -> Agreement:
    digests = {name: _digest(request.targets[name]) for name in request.grid.targets}
    return Agreement(request.effort, request.plan, _digest(request.source), digests)


def _digest(domain: Domain) -> str:
    return digest_cases(domain.cases)


def _pretrain(request: BenchmarkRequest, folder: BenchmarkFolder, tell: Callable[[str], None]) -> None:
    grid = request.grid
    wanted = [(one, seed) for seed in grid.seeds for one in grid.pretrainings if not folder.base(one, seed).is_file()]
    tasks = (
        Task(
            f"base {pretraining} {seed}",
            pretrain,
            (folder.base(pretraining, seed), _lesson(request, pretraining, seed), folder.cache),
        )
        for pretraining, seed in wanted
    )
    for number, result in enumerate(run_tasks(tasks, jobs=request.jobs), start=1):
        if result.fault:
            raise TrainingError(f"{result.task.name} failed: {result.fault}")
        tell(f"{number}/{len(wanted)} {result.task.name}: Dice {result.value or 0:.3f} on its selection cases")


def _lesson(request: BenchmarkRequest, pretraining: Pretraining, seed: int) -> Lesson:
    return lesson_for(request.source, request.plan, request.effort, seed=seed, pretraining=pretraining)


def _note_beginnings(
    request: BenchmarkRequest, folder: BenchmarkFolder, outcomes: Mapping[Cell, Outcome], tell: Callable[[str], None]
) -> None:
    """Measure once what bases can do; where that fails it is told, and the cells try by themselves."""
    wanted: dict[tuple[str, Pretraining, int], Cell] = {}
    for cell in request.grid.cells():
        if cell not in outcomes and cell.method not in DANTE_METHODS:
            wanted.setdefault((cell.target, _pretraining(request, cell), cell.seed), cell)
    tasks = (
        Task(
            f"beginning {target} {pretraining} {seed}",
            note_beginning,
            (folder.cache, target, folder.base(pretraining, seed), _split(request, cell), seed),
        )
        for (target, pretraining, seed), cell in wanted.items()
    )
    for result in run_tasks(tasks, jobs=request.jobs):
        if result.fault:
            tell(f"{result.task.name} failed: {result.fault}")


def _run_missing(
    request: BenchmarkRequest,
    folder: BenchmarkFolder,
    outcomes: dict[Cell, Outcome],
    clock: Clock,
    tell: Callable[[str], None],
) -> list[str]:
    """Run the cells that are not there yet, and add them to the outcomes; the faults, in words."""
    missing = [cell for cell in request.grid.cells() if cell not in outcomes]
    faults = []
    for number, result in enumerate(run_tasks(_tasks(request, folder, missing), jobs=request.jobs), start=1):
        name = f"{number}/{len(missing)} {result.task.name}"
        if result.fault:
            faults.append(f"{result.task.name}: {result.fault}")
            tell(f"{name} failed: {result.fault}")
            continue
        outcome: Outcome = result.value
        cell = Cell.from_name(result.task.name)
        folder.keep(cell, outcome)
        outcomes[cell] = outcome
        _write_tables(folder, outcomes)
        clock.note()
        tell(f"{name}: Dice {outcome.dice['mean'] or 0:.3f}, {outcome.curve[-1].seconds:.1f} s")
    return faults


def _tasks(request: BenchmarkRequest, folder: BenchmarkFolder, cells: list[Cell]) -> Iterator[Task]:
    for cell in cells:
        runner = runner_for(cell.method, request.effort, folder.cache, request.dante)
        base = folder.base(_pretraining(request, cell), cell.seed)
        yield Task(cell.name, run_cell, (runner, cell, _split(request, cell), base, folder.work(cell)))


def _split(request: BenchmarkRequest, cell: Cell) -> Split:
    target, pretraining = request.targets[cell.target], _pretraining(request, cell)
    return split_cases(request.source, target, seed=cell.seed, shots=cell.shots, pretraining=pretraining)


def _pretraining(request: BenchmarkRequest, cell: Cell) -> Pretraining:
    """Whose base the cell gets; one from nothing takes its network alone."""
    return cell.pretraining or request.grid.pretrainings[-1]


def _write_tables(folder: BenchmarkFolder, outcomes: Mapping[Cell, Outcome]) -> list[Row]:
    """In the order of the cells' names, whatever was finished first."""
    outcomes = dict(sorted(outcomes.items(), key=lambda item: item[0].name))
    rows = make_rows(outcomes)
    write_results(folder.path / "results.csv", rows)
    write_curves(folder.path / "curves.csv", outcomes)
    return rows
