"""Fixtures that several tests share."""

import sys

import pytest
from sites import NEW_SCANNER, train_model, write_cases

from dafne_dante.cli import main


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a trained tiny model, cases of its own scanner and cases of another one; read only."""
    folder = tmp_path_factory.mktemp("trained")
    train_model(folder / "base.model")
    write_cases(folder / "own", (11, 12))
    write_cases(folder / "new", (21, 22, 23, 24), **NEW_SCANNER)
    return folder


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(tmp_path / "configuration"))
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dafne-dante", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capfd.readouterr()
        return code, out, err

    return run
