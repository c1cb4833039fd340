"""The outbox after a kill, a failing call or a full disk at the changes that it makes to the disk.

What is done, and what must hold afterwards, is in `crashing_outbox.py`; here it is started. On a disk in memory where
there is one: what a killed process wrote is there with or without a flush, and the flushes would take minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from test_store_crashes import faults

__all__ = ["faults"]

HERE = Path(__file__).parent
IN_MEMORY = Path("/dev/shm")
POINTS = {"begin": 100, "lose": 100, "two": 120, "again": 60, "recover": 70, "cancel": 45, "retry": 80}
POINTS |= {"withdraw": 100, "sealed": 100, "full model": 100, "parts": 100, "pack": 20}


def run(seam, mode, step, *scenarios, program="crashing_outbox.py", **environment):
    options = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    fast = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=fast) as folder:
        words = [sys.executable, str(HERE / program), folder, seam, mode, str(step), *scenarios]
        done = subprocess.run(words, env={**os.environ, **options, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("scenario", ["begin", "again", "recover", "cancel"])
def test_every_change_of_ours_may_be_the_last(scenario):
    found = run("python", "kill", 1, scenario)[scenario]
    assert found["points"] >= POINTS[scenario], "every change is a point"
    assert (found["killed"], found["not reached"]) == (found["points"], 1)
    assert found["results"] > 1, "both the old and the new were seen"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("program", "scenario", "step"),
    [
        ("crashing_outbox.py", "withdraw", 11),
        ("crashing_sending.py", "sealed", 11),
        ("crashing_sending.py", "full model", 11),
        ("crashing_sending.py", "parts", 11),
        ("crashing_sending.py", "pack", 4),
    ],
)
def test_a_sample_of_our_changes_may_be_the_last_in_whatever_form_it_leaves(program, scenario, step):
    found = run("python", "kill", step, scenario, program=program)[scenario]
    assert found["points"] >= POINTS[scenario], found
    assert found["killed"] == len(range(0, found["points"], step))
    assert found["results"] > 1, "both the old and the new were seen"


@pytest.mark.parametrize(
    ("mode", "step", "scenario"), [("kill", 3, "lose"), ("kill", 5, "two"), ("full", 5, "begin"), ("fail", 5, "retry")]
)
def test_any_change_of_ours_and_of_sqlite_may_be_the_last(faults, mode, step, scenario):
    found = run("c", mode, step, scenario, LD_PRELOAD=str(faults))[scenario]
    assert found["points"] >= POINTS[scenario]
    assert found["results"] > 1
    assert found.get("killed", 0) == (len(range(0, found["points"], step)) if mode == "kill" else 0)
