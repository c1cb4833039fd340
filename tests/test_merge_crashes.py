"""A merge that is killed at a change of the disk: afterwards one published effect, and nothing lost.

The program tries every 22nd point here; `python tests/crashing_merge.py FOLDER 1` tries all. On a disk in
memory where there is one: what a killed process wrote is there with or without a flush.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
IN_MEMORY = Path("/dev/shm")
FIRST, STEP, PARTS = 40, 22, 4
KILLED_IN_EACH = 13
assert PARTS * KILLED_IN_EACH >= 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("part", range(PARTS))
def test_a_merge_may_be_killed_at_any_change_of_the_disk(part):
    """Together at least 50 points, spread evenly; in parts so that none takes long."""
    fast = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=fast) as folder:
        points = (str(PARTS * STEP), str(FIRST + part * STEP))
        done = subprocess.run(
            [sys.executable, HERE / "crashing_merge.py", folder, *points],
            capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["killed"] >= KILLED_IN_EACH
    assert found["done"] == 1
