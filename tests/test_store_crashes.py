"""The store after a kill, a failing call or a full disk at every single change that it makes to the disk.

What is done, and what must hold afterwards, is in `crashing.py`; here it is started. Under the C library every write,
flush, rename and deletion of SQLite is a point as well; that needs a C compiler, and Linux.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
POINTS = {"replace": 30, "new": 20, "remove": 25, "drop": 30, "begin": 30, "tidy": 20, "rebuild": 30}


def run(folder, seam, mode, *scenarios, **environment):
    options = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    program = [sys.executable, str(HERE / "crashing.py"), str(folder), seam, mode, *scenarios]
    done = subprocess.run(program, env={**os.environ, **options, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def faults(tmp_path_factory):
    """The library that makes calls of the C library fail."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler; the same is tried under Python")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = str(HERE / "crashing_faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), source, "-ldl"], check=True)
    return library


def judge(scenario, mode, found):
    assert found["points"] >= POINTS[scenario], "every change is a point"
    assert found["not reached"] == 1
    if mode == "kill":
        assert found["killed"] == found["points"]
    else:
        assert found["refused"] + found.get("done", 0) == found["points"]
    assert (found["results"] > 1) == (scenario not in ("tidy", "rebuild")), "both the old and the new were seen"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_change_of_ours_may_be_the_last(tmp_path):
    for scenario, found in run(tmp_path, "python", "kill", *POINTS).items():
        judge(scenario, "kill", found)


@pytest.mark.parametrize(("mode", "scenarios"), [
    ("kill", tuple(POINTS)), ("full", tuple(POINTS)), ("fail", ("replace", "remove")),
])  # fmt: skip
def test_every_change_of_ours_and_of_sqlite_may_be_the_last(tmp_path, faults, mode, scenarios):
    answers = run(tmp_path, "c", mode, *scenarios, LD_PRELOAD=str(faults))
    assert answers.keys() == set(scenarios)
    for scenario, found in answers.items():
        judge(scenario, mode, found)


def test_a_power_cut_finds_the_new_file_on_the_disk_before_the_index_names_it(tmp_path):
    """What a power cut leaves is what was flushed: the order of the flushes is what counts, and it is this."""
    log = [tuple(step) for step in run(tmp_path, "python", "order", "replace")["replace"]]
    names = [name for name, _ in log]
    renamed = next(at for at, (name, detail) in enumerate(log) if name == "replace" and detail.endswith(".part"))
    inserted = next(at for at, (_, detail) in enumerate(log) if detail.startswith("INSERT INTO cases"))
    committed = next(at for at, step in enumerate(log) if at > inserted and step == ("statement", "COMMIT"))
    deleted = next(at for at, (name, detail) in enumerate(log) if name == "unlink" and detail.endswith(".case"))
    last_write = max(at for at, name in enumerate(names) if name == "write")
    assert "fsync" in names[last_write:renamed], "the file, before it has its name"
    assert "fsync" in names[renamed:inserted], "its name, before the index has it"
    assert renamed < inserted < committed < deleted
    assert log[committed - len(log) :].count(("statement", "COMMIT")) == 2
    assert ("statement", "PRAGMA synchronous = EXTRA") in log[:committed]
