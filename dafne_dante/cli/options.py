"""Options that several commands share, with one wording."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Data", "Epochs", "Json", "MemoryGb", "Out", "Seed", "Series", "SkipFaulty"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Data = Annotated[
    list[Path] | None,
    typer.Option(
        help="Labelled studies: a folder or a file with NIfTI, DICOM or Dafne bundles, mixed if need be; repeatable. "
        "The cases that this site keeps (`cases list`) when left out.",
    ),
]
Series = Annotated[
    str | None, typer.Option(help="The DICOM series to use, by UID or description; else the one that labels refer to.")
]
SkipFaulty = Annotated[
    bool, typer.Option("--skip-faulty", help="Leave faulty studies of a dataset out instead of refusing all of it.")
]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs; a sensible number when left out.")]
Seed = Annotated[int, typer.Option(min=0, help="One seed, one result.")]
MemoryGb = Annotated[
    float | None,
    typer.Option(help="Memory that a training step may take, in GB (10^9 bytes); what is free when left out."),
]
