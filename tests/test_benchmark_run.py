"""The benchmark from beginning to end: a tiny one, killed and gone on with; workers; folders of a person's own."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest
from outcomes import made_cell, made_outcome
from phantoms import tiny_plan
from tiny_benchmark import domain, refuse, request, take_memory_of_a_killed
from typer.testing import CliRunner

from dafne_dante.benchmark import recipes
from dafne_dante.benchmark.benchmark import run_benchmark
from dafne_dante.benchmark.clock import Clock
from dafne_dante.benchmark.comparison import make_rows
from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.folder import BenchmarkFolder
from dafne_dante.benchmark.folders import FolderRequest, named_folders, one_person_one_name, read_folder
from dafne_dante.benchmark.plots import draw_plots
from dafne_dante.benchmark.protocol import Cell
from dafne_dante.benchmark.requests import Wish, make_request
from dafne_dante.benchmark.splits import separate
from dafne_dante.benchmark.summary import summaries_as_json
from dafne_dante.benchmark.workers import Task, run_tasks
from dafne_dante.cli.main import application
from dafne_dante.config import Settings
from dafne_dante.demo.scanners import SCANNER_A, write_hospital
from dafne_dante.errors import NotEnoughCasesError, SettingsError, StorageError
from dafne_dante.training import choice, defaults

TESTS = Path(__file__).parent
PLOTS = ("dice_seconds.png", "dice_bars.png", "bytes_dice.png")


def run_until_a_cell_is_finished(out):
    """The benchmark in a process of its own, killed when its first cell is there."""
    process = subprocess.Popen([sys.executable, str(TESTS / "tiny_benchmark.py"), str(out)], cwd=TESTS)
    deadline = time.monotonic() + 120
    while not list(out.glob("cells/[!.]*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed after its first cell; what was finished then, and then the whole run's rows."""
    out = tmp_path_factory.mktemp("benchmark") / "out"
    run_until_a_cell_is_finished(out)
    finished = {path.name: path.read_bytes() for path in out.glob("cells/[!.]*.json")}
    said = []
    rows = run_benchmark(request(out), tell=said.append)
    return out, finished, rows, said


def test_a_killed_run_goes_on_with_what_is_missing(killed):
    out, finished, rows, said = killed
    assert len(finished) == 1
    assert {name: (out / "cells" / name).read_bytes() for name in finished} == finished, "it is not run again"
    assert len(said) == 1, "the base models and one cell were there"
    assert sorted(row.method for row in rows) == ["lora", "scratch"]


def test_results_hold_every_measure(killed):
    out = killed[0]
    table = {row["method"]: row for row in csv.DictReader((out / "results.csv").read_text().splitlines())}
    for method in ("lora", "scratch"):
        row = table[method]
        assert 0 <= float(row["test_dice"]) <= 1
        assert float(row["processor_seconds"]) > 0
        assert int(row["peak_bytes"]) > 1_000_000
        assert float(row["source_dice_before"]) >= 0
        assert (row["epochs"], row["pretraining"]) == ("2", "rich")
    assert int(table["lora"]["trainable_parameters"]) < int(table["scratch"]["trainable_parameters"])
    assert int(table["lora"]["sent_bytes"]) < 0.7 * int(table["scratch"]["sent_bytes"])
    assert len((out / "curves.csv").read_text().splitlines()) == 1 + 2 * 2
    assert "| one | 1 | rich |" in (out / "results.md").read_text()
    assert not (out / "work").exists()
    assert all(matplotlib.image.imread(out / name).shape[2] == 4 for name in PLOTS)


def test_another_benchmark_is_refused_in_that_folder(killed, tmp_path):
    out = killed[0]
    with pytest.raises(SettingsError, match=r"found another \(effort\)"):
        run_benchmark(request(out, epochs=3))
    with pytest.raises(SettingsError, match=r"found another \(source\)"):
        run_benchmark(request(out, first=7))
    with pytest.raises(SettingsError, match=r"found another \(plan\)"):
        run_benchmark(replace(request(out), plan=tiny_plan(first_channels=8)))
    with BenchmarkFolder(out).held(), pytest.raises(SettingsError, match="no other run"):
        run_benchmark(request(out))
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(SettingsError, match="new, empty or a benchmark"):
        run_benchmark(request(tmp_path))
    (tmp_path / "benchmark.json").write_text("[]")
    with pytest.raises(SettingsError, match=r"a benchmark's benchmark\.json"):
        run_benchmark(request(tmp_path))


def test_cells_of_other_software_or_other_rates_are_not_mixed(killed, monkeypatch):
    out = killed[0]
    before = (out / "benchmark.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(recipes, "__version__", "0.0.1")
        with pytest.raises(SettingsError, match=r"found another \(software\)"):
            run_benchmark(request(out))
    changes = [
        (defaults.LEARNING_RATES["lora"], "good", 7e-4),
        (defaults._WARMUP_SHARES, "new", 0.2),
        (defaults._SHARES_2D, "lora", 0.7),
        (defaults._SCRATCH_RATES, 3, 3e-3),
        (choice._EPOCHS, "poor", 21),
    ]
    for table, key, value in changes:
        with monkeypatch.context() as patch:
            patch.setitem(table, key, value)
            with pytest.raises(SettingsError, match=r"found another \(recipes\)"):
                run_benchmark(request(out))
    with monkeypatch.context() as patch:
        patch.setattr(choice, "_MANY_STUDIES", 22)
        with pytest.raises(SettingsError, match=r"found another \(recipes\)"):
            run_benchmark(request(out))
    older = {key: value for key, value in json.loads(before).items() if key not in {"software", "recipes"}}
    (out / "benchmark.json").write_text(json.dumps(older))
    with pytest.raises(SettingsError, match=r"found another \(software\)"):
        run_benchmark(request(out))
    (out / "benchmark.json").write_bytes(before)


def test_the_clock_of_the_wall_goes_on_over_all_runs(killed):
    out = killed[0]
    text = (out / "results.md").read_text()
    assert re.search(r"All of it took [\d,]+ s by the clock, in 2 runs, 1 training at a time\.", text), "killed once"
    before = json.loads((out / "clock.json").read_text())
    again = Clock(out / "clock.json").note()
    assert again.runs == before["runs"] + 1 == 3
    assert before["seconds"] < again.seconds < before["seconds"] + 60


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": "x", "runs": 1}', "[" * 4000])
def test_a_damaged_clock_begins_anew(tmp_path, content):
    (tmp_path / "clock.json").write_text(content)
    assert Clock(tmp_path / "clock.json").note().runs == 1


def test_an_unknown_method_or_too_many_shots_are_told_before_anything_is_made(tmp_path):
    with pytest.raises(SettingsError, match="expected a method from"):
        run_benchmark(request(tmp_path / "out", methods=("magic",)))
    with pytest.raises(NotEnoughCasesError, match="shots of one, found 9"):
        run_benchmark(request(tmp_path / "out", shots=(9,)))
    assert not (tmp_path / "out").exists()


def test_a_damaged_cell_is_told_by_its_name(tmp_path):
    folder = BenchmarkFolder(tmp_path)
    folder.keep(made_cell("lora"), made_outcome([0.5]))
    (tmp_path / "cells" / "one_full_rich_full_0.json").write_text("{")
    with pytest.raises(StorageError, match=r"in one_full_rich_full_0\.json"):
        folder.outcomes()


def test_a_task_that_fails_or_is_killed_costs_no_other():
    tasks = [
        Task("refused", refuse, ("no",)),
        Task("killed", take_memory_of_a_killed, ()),
        Task("sum", sum, ([1, 2],)),
    ]
    results = {result.task.name: result for result in run_tasks(tasks, jobs=2)}
    assert (results["refused"].fault, results["sum"].value) == ("no", 3)
    assert "killed by signal 9" in results["killed"].fault


def test_plots_show_many_seeds_and_any_name(tmp_path):
    outcomes = {}
    for seed in range(3):
        for number, method in enumerate(("scratch", "full", "lora", "magic")):
            for shots in (None, 1):
                cell = made_cell(method, seed=seed, shots=shots, target="a-b")
                outcomes[cell] = made_outcome([0.1, None, 0.2 * number + seed / 50], dice=None if seed else 0.4)
    rows = make_rows(outcomes)
    pictures = [matplotlib.image.imread(path) for path in draw_plots(tmp_path, rows)]
    assert len(pictures) == len(PLOTS)
    fewer = [matplotlib.image.imread(path) for path in draw_plots(tmp_path, [r for r in rows if r.method != "magic"])]
    assert all(one.shape != other.shape or (one != other).any() for one, other in zip(pictures, fewer, strict=True))
    assert draw_plots(tmp_path, []) == []


def test_every_pretraining_has_its_plots(tmp_path):
    dice = {"small": 0.3, "rich": 0.8}
    outcomes = {
        made_cell(method, pretraining=pretraining): made_outcome([0.1, value], dice=value)
        for pretraining, value in dice.items()
        for method in ("lora", "full")
    }
    drawn = draw_plots(tmp_path, make_rows(outcomes))
    small = tuple(name.replace(".png", "_small.png") for name in PLOTS)
    assert [path.name for path in drawn] == [*PLOTS, *small]
    for name, other in zip(PLOTS, small, strict=True):
        one, two = (matplotlib.image.imread(tmp_path / path) for path in (name, other))
        assert one.shape != two.shape or (one != two).any()
    (tmp_path / "alone").mkdir()
    alone = draw_plots(
        tmp_path / "alone", make_rows({cell: one for cell, one in outcomes.items() if "small" in cell.name})
    )
    assert [path.name for path in alone] == list(PLOTS), "where there is one pretraining, names are plain"


def test_without_matplotlib_the_cure_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SettingsError, match="pictures"):
        draw_plots(tmp_path, make_rows({made_cell("lora"): made_outcome([0.5])}))


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Two folders with four and six people, one of whom is in both."""
    folder = tmp_path_factory.mktemp("hospitals")
    write_hospital(folder / "first", SCANNER_A, range(4), voxel_mm=12.0)
    write_hospital(folder / "second", SCANNER_A, range(3, 9), voxel_mm=12.0)
    return folder


def test_own_folders_become_domains_and_who_is_in_both_leaves_the_source(hospitals, tmp_path):
    said = []
    wish = Wish(tmp_path / "out", source=str(hospitals / "first"), folders=(f"other={hospitals / 'second'}",), seeds=1)
    made = make_request(wish, Settings(folder=tmp_path), tell=said.append)
    assert (len(made.source.cases), len(made.targets["other"].cases)) == (3, 6)
    assert made.source.labels == ("grey matter", "white matter") == made.plan.labels
    assert made.grid.shots == (None, 1, 2), "three train, so that four shots are none"
    assert any("not fewer than all 3" in text for text in said)
    assert not {case.case_id for case in made.source.cases} & {case.case_id for case in made.targets["other"].cases}


def test_people_are_known_by_their_bids_name_unless_told_otherwise(hospitals, tmp_path):
    settings = Settings(folder=tmp_path)
    for subject in range(4):
        for kind in ("imagesTr/{}_0000", "labelsTr/{}"):
            old = hospitals / "first" / (kind.format(f"A_{subject:03d}") + ".nii.gz")
            new = hospitals / "bids" / (kind.format(f"sub-{subject}") + ".nii.gz")
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(old.read_bytes())
    (hospitals / "bids" / "dataset.json").write_bytes((hospitals / "first" / "dataset.json").read_bytes())
    here = read_folder(FolderRequest("here", hospitals / "bids"), settings)
    assert here.subjects == ("sub-0", "sub-1", "sub-2", "sub-3")
    alone = read_folder(FolderRequest("here", hospitals / "bids", other_people=True), settings)
    assert alone.subjects[0] == "here sub-0"


def test_equal_images_are_one_person_through_all_domains():
    one, two = domain("one", range(4)), domain("two", range(3, 6))
    renamed = Domain("two", two.labels, two.cases, ("a", "b", "b"))
    first, second = one_person_one_name([one, renamed])
    assert first.subjects[3] == second.subjects[0]
    assert len(set(first.subjects) | set(second.subjects)) == 5
    with pytest.raises(NotEnoughCasesError):
        separate(first, [one])


WRONG = {
    "a source without a target": {"source": "a"},
    "a target without a source": {"folders": ("b=c",)},
    "a target without a folder": {"source": "a", "folders": ("b",)},
    "both kinds": {"source": "a", "folders": ("b=c",), "targets": ("contrast",)},
    "an unknown target": {"targets": ("magic",)},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_options_that_do_not_go_together_are_refused(tmp_path, changes):
    if "source" in changes and "folders" in changes and "targets" not in changes:
        with pytest.raises(SettingsError, match="NAME=DIR"):
            named_folders(changes["folders"])
        return
    with pytest.raises(SettingsError):
        make_request(Wish(tmp_path, **changes), Settings(folder=tmp_path))


def test_quick_is_one_seed_full_data_and_one_shot(hospitals, tmp_path):
    wish = Wish(tmp_path, source=str(hospitals / "first"), folders=(f"other={hospitals / 'second'}",))
    whole, quick = (make_request(replace(wish, quick=one), Settings(folder=tmp_path)) for one in (False, True))
    assert len(list(whole.grid.cells())) == 3 * 3 * (1 + 4 * 2)
    cells = list(quick.grid.cells())
    assert len(cells) == 2 * 5
    assert Cell("other", 1, "rich", "lora", 0) in cells
    assert set(cells) < set(whole.grid.cells()), "the default goes on with what quick began"
    assert quick.effort == whole.effort
    assert make_request(replace(wish, epochs=70), Settings(folder=tmp_path)).effort.epochs == 70


def test_the_command_refuses_what_it_cannot_do(tmp_path):
    runner = CliRunner()
    for options in (["--shots", "many"], ["--target", "a=b"], ["--methods", "lora,lora"], ["--targets", "magic"]):
        found = runner.invoke(
            application, ["benchmark", "--out", str(tmp_path / "out"), "--targets", "magic", *options]
        )
        assert isinstance(found.exception, SettingsError), options
    assert not (tmp_path / "out").exists()


def test_what_is_printed_for_programs_has_an_entry_a_setting_and_method(killed):
    entries = summaries_as_json(killed[2])["results"]
    assert [(one["method"], one["shots"], one["seeds"]) for one in entries] == [("scratch", "1", 1), ("lora", "1", 1)]
    assert entries[0]["forgotten"] is not None
    assert json.loads(json.dumps(entries)) == entries
