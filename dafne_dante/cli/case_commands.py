"""Commands around the site's case store: add, scan, list, show, remove, verify, export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dafne_dante.cli.output import errors_console, print_object
from dafne_dante.config import load_settings

if TYPE_CHECKING:
    from dafne_dante.annotations.store.records import StoredCase
    from dafne_dante.annotations.store.store import CaseStore

__all__ = ["cases"]

cases = typer.Typer(
    help="This site's labelled cases, sealed on this machine; nothing of them is readable without its key.",
    no_args_is_help=True,
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
CaseId = Annotated[str, typer.Argument(help="A case's pseudonym, as `cases list` prints it.")]


@cases.command()
def add(
    paths: Annotated[list[Path], typer.Argument(help="Folders and files with labelled studies, of any kind.")],
    labels: Annotated[str, typer.Option(help="Take these labels only: a,b,c; all when left out.")] = "",
    series: Annotated[str | None, typer.Option(help="The DICOM series to use, by UID or description.")] = None,
    as_json: Json = False,
) -> None:
    """Keep labelled studies; a later correction of a study replaces the earlier one."""
    from dafne_dante.plugin.keeping import keep_studies

    settings = load_settings()
    wanted = tuple(label.strip() for label in labels.split(",") if label.strip()) or None
    kept = keep_studies(tuple(paths), settings, labels=wanted, series=series, say=_say)
    for left in kept.left:
        _say(f"left {left.reason if left.reason.startswith(left.name) else f'{left.name}: {left.reason}'}")
    answer = {
        "added": [{"name": name, "case_id": added.case_id, "outcome": added.outcome} for name, added in kept.added],
        "dropped": list(kept.dropped),
        "left": [{"name": left.name, "reason": left.reason} for left in kept.left],
    }
    text = [f"{added.case_id} {added.outcome}: {name}" for name, added in kept.added]
    text += [f"{case_id} dropped: the store is limited (keep_cases, keep_days, keep_gib)" for case_id in kept.dropped]
    print_object(answer, as_json=as_json, text=lambda: "\n".join(text))


@cases.command()
def scan(
    again: Annotated[bool, typer.Option("--again", help="Tell again why studies were refused before.")] = False,
    quiet: Annotated[float, typer.Option(min=0, help="Seconds that nothing must have touched a study.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Look into the watch folders of the settings once, and keep what is new, changed and complete."""
    from dafne_dante.plugin.watching import keep_new

    kept = keep_new(load_settings(), say=_say, again=again, quiet_s=quiet)
    found = kept.scan
    for left in found.left:
        _say(f"left {left.reason if left.reason.startswith(left.name) else f'{left.name}: {left.reason}'}")
    for waiting in found.waiting:
        _say(f"waiting for {waiting.name}: {waiting.reason}")
    pairs = list(zip(found.taken, kept.added, strict=True))
    dropped = [case_id for added in kept.added for case_id in added.dropped]
    answer = {
        "added": [{"name": one.name, "case_id": one.case_id, "outcome": added.outcome} for one, added in pairs],
        "dropped": dropped,
        "waiting": [{"name": waiting.name, "reason": waiting.reason} for waiting in found.waiting],
        "left": [{"name": left.name, "reason": left.reason} for left in found.left],
        "unchanged": found.unchanged,
    }
    text = [f"{one.case_id} {added.outcome}: {one.name}" for one, added in pairs]
    text += [f"{case_id} dropped: the store is limited (keep_cases, keep_days, keep_gib)" for case_id in dropped]
    text.append(f"{len(pairs)} kept, {len(found.waiting)} waiting, {found.unchanged} unchanged, {len(found.left)} left")
    print_object(answer, as_json=as_json, text=lambda: "\n".join(text))


@cases.command("list")
def list_cases(as_json: Json = False) -> None:
    """What is kept: pseudonym, labels, shape, labelled slices, size, age. No image is opened."""
    from dafne_dante.annotations.store.opening import store_exists

    listing = _store().listing() if store_exists(load_settings()) else None
    found = [_described(case) for case in listing.cases] if listing else []
    damaged = [{"case_id": damage.case_id, "reason": damage.reason} for damage in listing.damaged] if listing else []
    lines = [_line(case) for case in found] + [f"{damage['case_id']}  damaged" for damage in damaged]
    total = sum(case["bytes"] for case in found)
    print_object(
        {"cases": found, "damaged": damaged, "bytes": total},
        as_json=as_json,
        text=lambda: "\n".join([*lines, f"{len(found)} cases, {total / 1e6:.1f} MB"]),
    )


@cases.command()
def show(
    case_id: CaseId,
    out: Annotated[Path, typer.Option(help="The picture, FILE.png.")],
    contrast: Annotated[int, typer.Option(min=1, help="Which contrast of the image.")] = 1,
    as_json: Json = False,
) -> None:
    """Draw slices with the outlines of the labels, to see whether image and masks fit."""
    from dafne_dante.annotations.picture import draw_case

    if out.suffix != ".png":
        raise typer.BadParameter("expected a name that ends with .png", param_hint="--out")
    case = _store().read(case_id)
    draw_case(out, case, channel=contrast - 1)
    answer = {"case_id": case_id, "labels": list(case.labels), "shape": list(case.shape)}
    print_object(answer, as_json=as_json, text=lambda: f"{out.name}: case {case_id}, {', '.join(case.labels)}")


@cases.command()
def remove(case_id: CaseId, as_json: Json = False) -> None:
    """Forget a case and delete its file."""
    _store().remove(case_id)
    print_object({"removed": case_id}, as_json=as_json, text=lambda: f"removed {case_id}")


@cases.command()
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="First make the index anew from the cases' files.")] = False,
    as_json: Json = False,
) -> None:
    """Read every case to its last bit; exit code 1 when one is damaged."""
    report = _store(repair=repair).verify()
    answer = {
        "sound": list(report.sound),
        "damaged": [{"case_id": damage.case_id, "reason": damage.reason} for damage in report.damaged],
        "index_fault": report.index_fault,
    }
    lines = [damage.reason for damage in report.damaged] + ([report.index_fault] if report.index_fault else [])
    lines.append(f"{len(report.sound)} cases are sound, {len(report.damaged)} damaged")
    print_object(answer, as_json=as_json, text=lambda: "\n".join(lines))
    if not report.is_sound:
        raise typer.Exit(1)


@cases.command()
def export(
    case_id: CaseId,
    out: Annotated[Path, typer.Option(help="A folder; the case gets a folder (nifti) or a file (npz) in it.")],
    form: Annotated[str, typer.Option("--format", help="nifti, or npz as Dafne reads it.")] = "nifti",
    as_json: Json = False,
) -> None:
    """Write a case as files that other programs read; they are not sealed."""
    from dafne_dante.annotations.dafne.bundle_writing import write_bundle
    from dafne_dante.annotations.store.export import write_nifti
    from dafne_dante.plugin.results import results_folder

    if form not in ("nifti", "npz"):
        raise typer.BadParameter(f"expected nifti or npz, found {form}", param_hint="--format")
    case = _store().read(case_id)
    with results_folder(out) as folder:
        if form == "npz":
            files = [f"{case_id}.npz"]
            write_bundle(case, folder / files[0])
        else:
            files = [path.relative_to(folder).as_posix() for path in write_nifti(case, folder / case_id)]
    print_object({"case_id": case_id, "files": files}, as_json=as_json, text=lambda: "\n".join(files))


def _store(*, repair: bool = False) -> "CaseStore":
    from dafne_dante.annotations.store.opening import open_case_store, repair_case_store, store_exists
    from dafne_dante.errors import StorageError

    settings = load_settings()
    if not store_exists(settings):
        raise StorageError("expected a case store, found none; fill it: dafne-dante cases add FOLDER")
    return repair_case_store(settings, say=_say) if repair else open_case_store(settings, say=_say)


def _say(text: str) -> None:
    errors_console.print(text, markup=False)


def _described(case: "StoredCase") -> dict[str, Any]:
    import time

    header = case.header
    return {
        "case_id": case.case_id,
        "labels": list(header.labels),
        "shape": list(header.shape),
        "contrasts": header.channels,
        "annotated_slices": header.annotated_slices,
        "bytes": case.file_bytes,
        "age_days": round((time.time_ns() - header.saved_ns) / 86_400e9, 2),
    }


def _line(case: dict[str, Any]) -> str:
    shape = " x ".join(map(str, case["shape"]))
    slices = f"{case['annotated_slices']} of {case['shape'][2]} slices"
    size = f"{case['bytes'] / 1e6:.1f} MB"
    return f"{case['case_id']}  {shape}  {slices}  {size}  {case['age_days']:.0f} days  {', '.join(case['labels'])}"
