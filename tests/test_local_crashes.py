"""A site's improved models after a kill, a failing call or a full disk at any change of the disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
POINTS = {"first": 20, "replace": 20, "back": 7, "forget": 10}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("mode", ["kill", "fail", "full"])
def test_every_change_may_be_the_last(tmp_path, mode):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    program = [sys.executable, str(HERE / "crashing_local.py"), str(tmp_path), mode, *POINTS]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for scenario, found in json.loads(done.stdout).items():
        assert found["points"] >= POINTS[scenario]
        assert found["results"] == 2, "both the old and the new were seen"
        if mode == "kill":
            assert found["killed"] == found["points"]
