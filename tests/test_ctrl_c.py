"""Ctrl-C ends with the same code wherever it falls, also inside code that a library compiles from text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from dafne_dante.cli.output import run_guarded

def application():
    {interrupted}

run_guarded(application)
"""


@pytest.mark.parametrize("interrupted", ["raise KeyboardInterrupt", "exec('raise KeyboardInterrupt')"])
@pytest.mark.parametrize("as_module", [True, False])
def test_ctrl_c_is_130_and_one_line(tmp_path, interrupted, as_module):
    (tmp_path / "interrupted.py").write_text(PROGRAM.format(interrupted=interrupted))
    how = ["-m", "interrupted"] if as_module else [str(tmp_path / "interrupted.py")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path.cwd())))}
    ended = subprocess.run([sys.executable, *how], env=variables, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "stopped\n")
