"""The benchmark command."""

from pathlib import Path
from typing import Annotated

import typer

from dafne_dante.cli.options import Json, SkipFaulty
from dafne_dante.cli.output import print_object, say

__all__ = ["benchmark"]


def benchmark(
    out: Annotated[Path, typer.Option(help="Folder for the results; a run that was stopped goes on there.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="A part of it, a tenth of the time: one seed, full data and one shot.")
    ] = False,
    seeds: Annotated[int | None, typer.Option(min=1, max=1000, help="How many seeds; 3, quick 1.")] = None,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "",
    targets: Annotated[
        str, typer.Option(help="Simulated target domains, separated by commas; all when left out.")
    ] = "",
    shots: Annotated[str, typer.Option(help="Training subjects: full, 1, 2, ..., separated by commas.")] = "",
    source: Annotated[
        str | None, typer.Option(help="Own labelled studies of the source domain, or a public set as SET:DIR.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Own target domain as NAME=DIR or NAME=SET:DIR; repeatable.")
    ] = None,
    other_people: Annotated[
        bool, typer.Option("--other-people", help="Equal names of subjects in two folders are different people.")
    ] = False,
    skip_faulty: SkipFaulty = False,
    dante: Annotated[
        Path | None,
        typer.Option(help="The program dante_train: its methods too, and its 2D U-Net for all of them."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, max=10_000, help="Epochs of each training.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Trainings at a time, one thread each.")] = 2,
    as_json: Json = False,
) -> None:
    """Compare the methods of adaptation: Dice, time, bytes and forgetting on several target domains."""
    from dafne_dante.benchmark.benchmark import run_benchmark
    from dafne_dante.benchmark.protocol import parse_shots
    from dafne_dante.benchmark.report import report_text
    from dafne_dante.benchmark.requests import Wish, make_request
    from dafne_dante.benchmark.summary import summaries_as_json
    from dafne_dante.config import load_settings

    wish = Wish(
        out=out,
        quick=quick,
        methods=_names(methods),
        targets=_names(targets),
        shots=tuple(parse_shots(one) for one in _names(shots)),
        seeds=seeds,
        epochs=epochs,
        jobs=jobs,
        source=source,
        folders=tuple(target or ()),
        skip_faulty=skip_faulty,
        other_people=other_people,
        dante=dante,
    )
    request = make_request(wish, load_settings(), tell=say)
    rows = run_benchmark(request, tell=say)
    print_object(summaries_as_json(rows), as_json=as_json, text=lambda: report_text(rows, request.effort))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))
