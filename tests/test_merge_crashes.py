"""A merge that is killed at a change of the disk: afterwards one published effect, and nothing lost.

The program tries some of the points here; `python tests/crashing_merge.py FOLDER 1` tries all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_merge_may_be_killed_at_any_change_of_the_disk(tmp_path):
    program = Path(__file__).with_name("crashing_merge.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path, "85", "40"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["killed"] >= 12
    assert found["done"] == 1
