"""The command `doctor`: what is well and what is not, and what to do."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dafne_dante.cli.options import Json
from dafne_dante.cli.output import print_object
from dafne_dante.config import load_settings
from dafne_dante.errors import SettingsError

if TYPE_CHECKING:
    from dafne_dante.plugin.doctor.finding import Finding

__all__ = ["doctor"]

_MARKS = {"good": "ok  ", "warning": "note", "fault": "FAIL"}


def doctor(
    dafne_python: Annotated[Path | None, typer.Option(help="The Python of another environment, with Dafne.")] = None,
    as_json: Json = False,
) -> None:
    """Look at this machine, the settings, the server, the key and what is under way; exit code 1 for a fault."""
    findings = _findings(dafne_python)
    well = all(one.state != "fault" for one in findings)
    print_object(
        {"well": well, "findings": [asdict(one) for one in findings]},
        as_json=as_json,
        text=lambda: "\n".join(line for one in findings for line in _lines(one)),
    )
    if not well:
        raise typer.Exit(1)


def _findings(dafne_python: Path | None) -> "list[Finding]":
    from dafne_dante.plugin.doctor.examining import examine
    from dafne_dante.plugin.doctor.finding import fault
    from dafne_dante.plugin.doctor.machine_checks import check_dafne, check_device, check_python

    try:
        settings = load_settings()
    except SettingsError as error:
        wrong = fault("settings", str(error), "correct them; dafne-dante init writes what every setting means")
        return [wrong, check_python(), check_device(), check_dafne(dafne_python)]
    return examine(settings, dafne_python=dafne_python)


def _lines(finding: "Finding") -> list[str]:
    first = f"{_MARKS[finding.state]}  {finding.name}: {finding.found}"
    return [first, f"      -> {finding.advice}"] if finding.advice else [first]
