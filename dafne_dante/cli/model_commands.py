"""Commands around models and cases: improve, predict, evaluate, inspect, apply, relabel."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dafne_dante.cli.bundle_commands import client_of_bundle, queue_for_bundle
from dafne_dante.cli.options import Data, Epochs, Json, Out, Seed, Series, SkipFaulty
from dafne_dante.cli.output import epoch_bar, errors_console, in_words, print_object, say, tell
from dafne_dante.config import Settings, load_settings

if TYPE_CHECKING:
    from dafne_dante.adaptation.low_rank import Form
    from dafne_dante.annotations.collect import Collection
    from dafne_dante.federation.client import FederationClient

__all__ = ["apply", "evaluate", "improve", "inspect", "predict", "relabel"]


def improve(
    out: Out,
    data: Data = None,
    base: Annotated[Path | None, typer.Option(help="The global model as a file.")] = None,
    server: Annotated[str | None, typer.Option(help="Base URL of the federation server.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle with the global model, at a site without a network.")
    ] = None,
    model_type: Annotated[str, typer.Option("--type", help="The model's type on the server.")] = "",
    method: Annotated[
        str, typer.Option(help="auto, lora or gradual-unfreezing; for comparison full, head, norm or scratch.")
    ] = "auto",
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="What training may take where the method is auto.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of LoRA, at most; auto chooses, else 8.")] = None,
    form: Annotated[str, typer.Option(help="Of LoRA: lora-shared, or lora-channel as in the paper.")] = "lora-shared",
    pull: Annotated[
        float,
        typer.Option(min=0, help="Of full, LoRA and unfreezing: how strongly weights are drawn back to the model's."),
    ] = 0.0,
    elastic: Annotated[
        bool,
        typer.Option("--elastic", help="Of full: pull each weight by how much it matters for --replay or --reference."),
    ] = False,
    schedule: Annotated[
        str, typer.Option(help="Of gradual unfreezing: phased, paper, or probe (begins where the loss asks most).")
    ] = "phased",
    option: Annotated[
        list[str] | None, typer.Option(help="More of a method, NAME=VALUE, as in docs/adaptation.md; repeatable.")
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="Labelled studies of the model's own domain: what was forgotten there is told; repeatable."),
    ] = None,
    replay: Annotated[
        list[Path] | None,
        typer.Option(help="More to learn from, of the model's own domain, so that less is forgotten; repeatable."),
    ] = None,
    epochs: Epochs = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=0, help="Stop after so many epochs without a better one; 0 never; half of them, 8 at least, left out."
        ),
    ] = None,
    average: Annotated[
        float, typer.Option(min=0, max=0.9999, help="Decay of a running mean of the weights, as 0.99; 0 for none.")
    ] = 0.0,
    augmentation: Annotated[str, typer.Option(help="How strongly images are changed: plain or strong.")] = "plain",
    seed: Seed = 0,
    upload: Annotated[bool, typer.Option("--upload", help="Send the delta when the gate passes.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in OUT, which is written after every epoch.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Another file for the report, an HTML page; report.html in OUT when left out.")
    ] = None,
    with_kept: Annotated[
        bool, typer.Option("--with-kept", help="Learn from the cases that the site keeps as well as from DATA.")
    ] = False,
    series: Series = None,
    skip_faulty: SkipFaulty = False,
    as_json: Json = False,
) -> None:
    """Improve a global model from a site's own cases: improved.model, update.delta, report.html and its figures."""
    from dafne_dante.adaptation.gradual import SCHEDULE_NAMES
    from dafne_dante.adaptation.lora import CONVOLUTION_FORMS
    from dafne_dante.adaptation.method import METHOD_NAMES
    from dafne_dante.plugin.collecting import CaseRequest, account
    from dafne_dante.plugin.improve import improve as run
    from dafne_dante.plugin.improvement_request import ImprovementRequest, Progress
    from dafne_dante.training.choice import AUTO
    from dafne_dante.training.defaults import AUGMENTATIONS

    _check_source(base, server, bundle, model_type, upload)
    for value, allowed, flag in (
        (method, (AUTO, *METHOD_NAMES), "--method"),
        (form, CONVOLUTION_FORMS, "--form"),
        (schedule, SCHEDULE_NAMES, "--schedule"),
        (augmentation, tuple(AUGMENTATIONS), "--augmentation"),
    ):
        if value not in allowed:
            raise typer.BadParameter(f"expected one of {', '.join(allowed)}, found {value}", param_hint=flag)
    settings = load_settings()
    client = _client(server) if server else None
    if bundle is not None:
        client, server = client_of_bundle(bundle, settings)
    cases = CaseRequest(tuple(data or ()), series, skip_faulty, with_kept)
    chosen: Form = "lora-channel" if form == "lora-channel" else "lora-shared"
    request = ImprovementRequest(
        cases, out, base, model_type, method, epochs, seed, upload and bundle is None, resume, rank, chosen, schedule,
        tuple(reference or ()), tuple(replay or ()), server or "", report=report, minutes=minutes, pull=pull,
        elastic=elastic, options=tuple(option or ()), patience=patience, average=average, augmentation=augmentation,
    )  # fmt: skip
    collected: list[Collection] = []

    def take(collection: "Collection") -> None:
        collected.append(collection)
        tell(collection)

    bar, move = epoch_bar(method)
    with bar:
        summary = run(
            request,
            settings,
            client=client,
            progress=Progress(
                collected=take,
                stage=say,
                epoch=lambda record, total: move(record.epoch, total, record.dice["mean"]),
            ),
        )

    def text() -> str:
        share = summary.delta_bytes / summary.model_bytes
        return (
            f"gate {summary.gate}: {summary.gate_reason}\n"
            f"update.delta: {summary.delta_bytes} bytes, {share:.1%} of the model; "
            + ("sent" if summary.uploaded else "queued for the stick" if queued else "not sent")
        )

    queued = ""
    if bundle is not None and upload and summary.gate == "passed" and server:
        queued = queue_for_bundle(out / "update.delta", settings, server, summary.dice_after["mean"] or 0.0)

    print_object({**summary.as_json(), **account(collected[0])}, as_json=as_json, text=text)
    if upload and not summary.uploaded and not queued:
        errors_console.print(f"nothing was sent: {summary.gate_reason}", markup=False)
        raise typer.Exit(1)


def predict(
    image: Annotated[list[Path], typer.Option(help="A NIfTI image; once for each contrast, in order.")],
    out: Annotated[Path, typer.Option(help="The segmentation, FILE.nii.gz.")],
    model: Annotated[Path | None, typer.Option(help="A .model file.")] = None,
    local: Annotated[str, typer.Option(help="Instead: this site's improved model of a type.")] = "",
    as_json: Json = False,
) -> None:
    """Segment an image; the result lies in the image's own grid, 0 background, i the model's i-th label."""
    from dafne_dante.annotations.nifti.image import read_image
    from dafne_dante.annotations.nifti.volume import write_segmentation
    from dafne_dante.plugin.segment import segment_with_file

    if not out.name.endswith((".nii.gz", ".nii")):
        raise typer.BadParameter("expected a name that ends with .nii.gz", param_hint="--out")
    if (model is None) == (not local):
        raise typer.BadParameter("expected a .model file or --local TYPE", param_hint="--model")
    settings = load_settings()
    file = model or _local_file(local, settings)
    grid = read_image(image)
    trusted = settings.run_model_code
    segmentation, labels = segment_with_file(file, grid.image, grid.spacing_mm, run_model_code=trusted)
    original = grid.to_original(segmentation)
    write_segmentation(out, original, grid.original_affine)
    voxels = {name: int((original == value).sum()) for value, name in enumerate(labels, start=1)}
    print_object(
        {"voxels": voxels, "shape": list(original.shape)},
        as_json=as_json,
        text=lambda: f"{out.name}: " + ", ".join(f"{name} {count} voxels" for name, count in voxels.items()),
    )


def evaluate(
    model: Annotated[Path, typer.Option(help="A .model file.")],
    data: Data = None,
    series: Series = None,
    skip_faulty: SkipFaulty = False,
    as_json: Json = False,
) -> None:
    """Dice, HD95 and surface Dice (within 2 mm) of a model on labelled cases, in each image's own grid."""
    from dafne_dante.models.foreign.loading import read_any_model
    from dafne_dante.models.foreign.model import ForeignModel
    from dafne_dante.plugin.collecting import CaseRequest, account, collect_cases
    from dafne_dante.plugin.segment import measure_model

    settings = load_settings()
    loaded = read_any_model(model, run_model_code=settings.run_model_code)
    plan = None if isinstance(loaded, ForeignModel) else loaded.plan
    collection = collect_cases(
        CaseRequest(tuple(data or ()), series, skip_faulty),
        settings,
        labels=plan.labels if plan else None,
        contrasts=plan.in_channels if plan else None,
        say=say,
    )
    tell(collection)
    scores = measure_model(loaded, collection.cases, run_model_code=settings.run_model_code)
    print_object(
        {**scores, "cases": len(collection.cases), **account(collection)},
        as_json=as_json,
        text=lambda: f"{len(collection.cases)} cases: Dice {in_words(scores['dice'])}",
    )


def inspect(file: Annotated[Path, typer.Argument(help="A .model or a .delta file.")], as_json: Json = False) -> None:
    """Everything in a model or a delta that a person would want to know before it leaves the house."""
    from dafne_dante.plugin.inspect import describe_file, describe_in_words

    description = describe_file(file)
    print_object(description, as_json=as_json, text=lambda: describe_in_words(description))


def apply(
    base: Annotated[Path, typer.Option(help="The base .model file.")],
    delta: Annotated[Path, typer.Option(help="The .delta file.")],
    out: Annotated[Path, typer.Option(help="The resulting .model file.")],
    as_json: Json = False,
) -> None:
    """Add a delta to its base model; a delta of another base, or with a broken signature, is refused."""
    from dafne_dante.models.file import write_model
    from dafne_dante.plugin.apply import apply_delta_file

    model, manifest = apply_delta_file(base, delta)
    write_model(model, out)
    print_object(
        {"model_id": str(model.model_id), "update_id": manifest.update_id, "method": manifest.method},
        as_json=as_json,
        text=lambda: f"{out.name}: {base.name} with {delta.name} ({manifest.method})",
    )


def relabel(
    model: Annotated[Path, typer.Option(help="A .model file.")],
    label: Annotated[list[str], typer.Option(help="A label of the new model; once for each, in order.")],
    out: Annotated[Path, typer.Option(help="The new .model file.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The same network for other labels, a family of its own: what it knows of labels that stay, stays."""
    from dafne_dante.models.file import read_model, write_model
    from dafne_dante.models.relabel import relabelled

    old = read_model(model)
    new = relabelled(old, label, seed=seed)
    write_model(new, out)
    kept = [name for name in label if name in old.plan.labels]
    print_object(
        {"model_id": str(new.model_id), "labels": list(new.plan.labels), "kept": kept},
        as_json=as_json,
        text=lambda: f"{out.name}: {', '.join(label)}; known before: {', '.join(kept) or 'none'}",
    )


def _check_source(
    base: Path | None, server: str | None, bundle: Path | None, model_type: str, upload: bool
) -> None:  # fmt: skip
    if sum(one is not None for one in (base, server, bundle)) != 1:
        raise typer.BadParameter("expected one of --base FILE.model, or --server URL or --bundle FILE with --type TYPE")
    if base is None and not model_type:
        raise typer.BadParameter("expected the model's type on the server", param_hint="--type")
    if upload and base is not None:
        raise typer.BadParameter("expected --server URL to upload to", param_hint="--upload")


def _local_file(model_type: str, settings: Settings) -> Path:
    """The improved model that this site uses of a type."""
    from dafne_dante.errors import SettingsError
    from dafne_dante.plugin.local.using import local_model

    found = local_model(settings, model_type)
    if found.file is None:
        raise SettingsError(f"expected an improved model in use, found none ({found.words}); name a file with --model")
    say(f"the improved model {found.number} is used: {found.words}")
    return found.file


def _client(server: str) -> "FederationClient":
    from dafne_dante.federation.client import connect

    return connect(load_settings(), server)
