"""More than 5,000 spoilt files, DICOM and others: each becomes a case or is refused; no crash, no hang, little memory.

They are read in a process of its own, whose memory the operating system limits, with warnings as errors.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import KINDS

EACH = 460


def test_there_are_enough():
    assert EACH * len(KINDS) >= 5000


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_spoilt_file_does_harm(tmp_path, kind):
    run = subprocess.run(
        [sys.executable, "mutants.py", kind, str(EACH), "11", str(tmp_path)],
        cwd=Path(__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert found["escaped"] == []
    assert found["cases"] + found["refused"] == EACH
    # Neither would tell anything if all mutants were harmless, or none were.
    assert found["refused"] > EACH // 10
    assert found["cases"] > EACH // 50
    assert found["slowest_s"] < 10
    assert found["peak_mib"] < 300
