"""Commands of a federation's operator: publish a first model, merge what the sites sent."""

from pathlib import Path
from typing import Annotated

import typer

from dafne_dante.cli.output import print_object
from dafne_dante.config import configuration_folder, load_settings

__all__ = ["merge", "publish"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Type = Annotated[str, typer.Option("--type", help="The model's type on the server.")]


def merge(
    model_type: Type,
    validation: Annotated[Path, typer.Option(help="The operator's own labelled cases.")],
    server: Annotated[str | None, typer.Option(help="Base URL of the federation server.")] = None,
    folder: Annotated[Path | None, typer.Option(help="The server's folder, on this machine.")] = None,
    as_json: Json = False,
) -> None:
    """Verify what waits, merge it, try it on the operator's cases; publish the result or quarantine with the reason."""
    from dafne_dante.annotations.folders import read_cases
    from dafne_dante.federation.client import connect
    from dafne_dante.federation.depot import Depot, FolderDepot, HttpDepot
    from dafne_dante.federation.operator import merge_pending

    if (server is None) == (folder is None):
        raise typer.BadParameter("expected either --server URL or --folder DIR")
    settings = load_settings()
    depot: Depot = FolderDepot(folder, model_type) if folder else HttpDepot(connect(settings, server or ""), model_type)
    report = merge_pending(depot, model_type, read_cases(validation), settings)

    def text() -> str:
        head = f"published {report.version}: {report.merged} update(s), step {report.step:g}"
        lines = [head if report.version else "nothing was published", report.reason]
        lines += [f"quarantined {one.upload}: {one.reason}" for one in report.quarantined]
        return "\n".join(lines + [f"left in the queue {one.upload}: {one.reason}" for one in report.skipped])

    print_object(report.as_json(), as_json=as_json, text=text)


def publish(
    root: Annotated[Path, typer.Option(help="The embedded server's folder.")],
    model_type: Type,
    model: Annotated[Path, typer.Option(help="The .model file.")],
    as_json: Json = False,
) -> None:
    """Put a model on the shelf as its type's newest version, and say that this operator takes deltas."""
    from dafne_dante.delta.signing import ensure_signing_key, public_key_text
    from dafne_dante.federation.shelf import Shelf
    from dafne_dante.models.file import read_model

    loaded = read_model(model)
    shelf = Shelf(root)
    capability = {"delta": 1, "operator_key": public_key_text(ensure_signing_key(configuration_folder()))}
    known = shelf.description(model_type) if shelf.has_type(model_type) else {}
    shelf.add_type(model_type, {**known, "categories": list(loaded.plan.labels), "dafne_dante": capability})
    version = shelf.publish_copy(model_type, model)
    print_object(
        {"type": model_type, "version": version}, as_json=as_json, text=lambda: f"{model_type}: version {version}"
    )
