"""The demonstration: one server and three hospitals on this machine, over real HTTP.

Hospital A's scanner made the cases of the first global model. Hospitals B and C see other scanners; each pulls the
model, improves it from a few cases of its own (B by LoRA, C by gradual unfreezing) and uploads only a delta. The
operator merges both and publishes the next global model.

What is real and what is simulated: see `anatomy` and `scanners`. Training, validation by the operator, and test cases
are different subjects everywhere; every Dice that is reported is that of test subjects nobody trained or chose on.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.folders import read_cases
from dafne_dante.config import Settings, load_settings, write_settings
from dafne_dante.delta.signing import ensure_signing_key, public_key_text, trust_key
from dafne_dante.demo.picture import ComparisonRow, draw_comparison
from dafne_dante.demo.scanners import SCANNER_A, SCANNER_B, SCANNER_C, Scanner, write_hospital
from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import SettingsError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import connect
from dafne_dante.federation.depot import FolderDepot, HttpDepot
from dafne_dante.federation.operator import MergeReport, merge_pending
from dafne_dante.federation.published_versions import hand_in
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model, write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.predict import predict_segmentation
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import improve
from dafne_dante.plugin.improvement_request import ImprovementRequest
from dafne_dante.plugin.summary import ImprovementSummary
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device
from dafne_dante.training.history import write_history
from dafne_dante.training.metrics import average_dice, dice_per_label
from dafne_dante.training.scratch import ScratchWish, train_from_scratch

__all__ = ["DemoOutcome", "HospitalOutcome", "run_demo"]

MODEL_TYPE = "Brain"
_VOXEL_MM = 5.0
_GLOBAL_EPOCHS, _LOCAL_EPOCHS = 14, 8
_DICE_MARGIN = 0.015
_MARKER = "dafne-dante-demo"


@dataclass(frozen=True)
class _Hospital:
    """A scanner, the method, and who is trained, validated and tested on (subject numbers)."""

    scanner: Scanner
    title: str
    method: str
    training: Sequence[int]
    testing: Sequence[int]


_A = _Hospital(SCANNER_A, "A: T1, the model's own scanner", "", range(8), range(100, 103))
_B = _Hospital(SCANNER_B, "B: other contrast, coil bias", "lora", range(20, 26), range(120, 123))
_C = _Hospital(SCANNER_C, "C: noise, thick slices", "gradual-unfreezing", range(40, 46), range(140, 143))
_HOSPITALS = {"A": _A, "B": _B, "C": _C}
_OPERATOR_SUBJECTS = range(60, 62)


@dataclass(frozen=True)
class HospitalOutcome:
    """Mean Dice on a hospital's test subjects: old global model, local improved one (None at A), new global model."""

    global_before: float
    improved: float | None
    global_after: float


@dataclass(frozen=True)
class DemoOutcome:
    """What the demonstration came to."""

    hospitals: Mapping[str, HospitalOutcome]
    delta_bytes: Mapping[str, int]
    model_bytes: int
    seconds: float
    merge_step: float = field(default=0.0)

    def as_json(self) -> dict[str, Any]:
        """The object that `demo --json` prints."""
        return {
            "hospitals": {name: vars(one) for name, one in self.hospitals.items()},
            "delta_bytes": dict(self.delta_bytes),
            "model_bytes": self.model_bytes,
            "seconds": self.seconds,
        }


def run_demo(out: Path, *, tell: Callable[[str], None] = lambda text: None) -> DemoOutcome:
    """Run the whole federation in `out`, which must be new, empty or an earlier demonstration's.

    Raises:
        SettingsError: `out` holds something else, or the extra `demo` is not installed.
        DanteError: see the steps.
    """
    begin = time.perf_counter()
    _prepare_folder(out)
    tell("making three hospitals from the ICBM152 template (real MRI, simulated scanners)")
    for name, hospital in _HOSPITALS.items():
        write_hospital(out / "hospitals" / name / "train", hospital.scanner, hospital.training, voxel_mm=_VOXEL_MM)
        write_hospital(out / "hospitals" / name / "test", hospital.scanner, hospital.testing, voxel_mm=_VOXEL_MM)
    write_hospital(out / "hospitals" / "operator", SCANNER_A, _OPERATOR_SUBJECTS, voxel_mm=_VOXEL_MM)
    tests = {name: read_cases(out / "hospitals" / name / "test") for name in _HOSPITALS}
    first = _train_global(out, tell)
    with RunningServer(out / "server") as server:
        settings = _set_up_server(out, server.url)
        hand_in(
            FolderDepot(out / "server", MODEL_TYPE),
            MODEL_TYPE,
            read_model(out / "global" / "model.model"),
            settings["operator"],
        )
        tell(f"published the first global model on {server.url}")
        summaries = {name: _improve(out, name, settings[name], tell) for name in ("B", "C")}
        report = _merge(out, settings["operator"], tell)
        operator = connect(settings["operator"])
        latest = operator.model_info(MODEL_TYPE).latest_timestamp
        second = read_model(operator.download_model(MODEL_TYPE, latest, make_folder(out / "global") / "next.model"))
    improved = {name: read_model(out / name / "improved.model") for name in ("B", "C")}
    outcome = DemoOutcome(
        hospitals={
            name: HospitalOutcome(
                _dice(first, cases), _dice(improved[name], cases) if name in improved else None, _dice(second, cases)
            )
            for name, cases in tests.items()
        },
        delta_bytes={name: summary.delta_bytes for name, summary in summaries.items()},
        model_bytes=(out / "global" / "model.model").stat().st_size,
        seconds=round(time.perf_counter() - begin, 1),
        merge_step=report.step,
    )
    _draw(out / "comparison.png", tests, first, second)
    write_atomically(out / "demo.json", (json.dumps(outcome.as_json(), indent=1) + "\n").encode())
    return outcome


def _prepare_folder(out: Path) -> None:
    """Start from nothing, and never delete what a demonstration did not make."""
    if out.exists() and any(out.iterdir()):
        if not (out / _MARKER).is_file():
            raise SettingsError(f"expected {out.name} to be new, empty or an earlier demo's folder; choose another")
        shutil.rmtree(out)
    make_folder(out)
    write_atomically(out / _MARKER, b"made by dafne-dante demo; deleted by the next one\n")


def _train_global(out: Path, tell: Callable[[str], None]) -> GlobalModel:
    tell("training the first global model on hospital A's scanner")
    trained = train_from_scratch(
        read_cases(out / "hospitals" / "A" / "train"),
        ScratchWish(
            cache=out / "configuration",
            epochs=_GLOBAL_EPOCHS,
            on_epoch=lambda record, total: tell(f"  epoch {record.epoch}/{total}: Dice {record.dice['mean'] or 0:.3f}"),
        ),
    )
    make_folder(out / "global")
    write_model(trained.model, out / "global" / "model.model")
    write_history(out / "global" / "history.csv", trained.result.history, trained.model.plan.labels)
    return trained.model


def _set_up_server(out: Path, url: str) -> dict[str, Settings]:
    """Users with keys, the type with its capability, and mutual trust; one configuration folder each."""
    accounts, shelf = Accounts(out / "server"), Shelf(out / "server")
    settings: dict[str, Settings] = {}
    for name in ("operator", "B", "C"):
        merge = [MODEL_TYPE] if name == "operator" else []
        key = accounts.add_user(name, access=[MODEL_TYPE], merge=merge)
        folder = out / "configuration" / name
        write_settings(Settings(folder=folder, server=url, api_key=key, dice_margin=_DICE_MARGIN))
        settings[name] = load_settings(folder, environment={})
    operator_key = public_key_text(ensure_signing_key(settings["operator"].folder))
    labels = list(read_model(out / "global" / "model.model").plan.labels)
    shelf.add_type(MODEL_TYPE, {"categories": labels, "dafne_dante": {"delta": 1, "operator_key": operator_key}})
    for name in ("B", "C"):
        trust_key(settings["operator"].folder, public_key_text(ensure_signing_key(settings[name].folder)), name)
    return settings


def _improve(out: Path, name: str, settings: Settings, tell: Callable[[str], None]) -> ImprovementSummary:
    hospital = _HOSPITALS[name]
    tell(f"hospital {name} improves it from {len(hospital.training)} cases by {hospital.method}")
    request = ImprovementRequest(
        data=CaseRequest((out / "hospitals" / name / "train",)),
        out=out / name,
        model_type=MODEL_TYPE,
        method=hospital.method,
        epochs=_LOCAL_EPOCHS,
        upload=True,
    )
    summary = improve(request, settings, client=connect(settings))
    sent = f"sent {summary.delta_bytes:,} bytes" if summary.uploaded else "sent nothing"
    tell(f"  {summary.gate_reason}; {sent} ({summary.delta_bytes / summary.model_bytes:.1%} of the model)")
    return summary


def _merge(out: Path, settings: Settings, tell: Callable[[str], None]) -> MergeReport:
    depot = HttpDepot(connect(settings), MODEL_TYPE)
    report = merge_pending(depot, MODEL_TYPE, read_cases(out / "hospitals" / "operator"), settings)
    tell(f"the operator merged {report.merged} deltas, step {report.step:g}: {report.reason}")
    for refusal in report.quarantined:
        tell(f"  quarantined {refusal.upload}: {refusal.reason}")
    return report


def _dice(model: GlobalModel, cases: Sequence[Case]) -> float:
    network = build_network(model.plan, model.weights).to(choose_device())
    return round(evaluate_cases(network, model.plan, cases)["mean"] or 0.0, 4)


def _draw(path: Path, tests: Mapping[str, Sequence[Case]], first: GlobalModel, second: GlobalModel) -> None:
    """One row a hospital: its first test subject with the old and the new global model."""
    networks = [build_network(model.plan, model.weights).to(choose_device()) for model in (first, second)]
    rows = []
    for name, cases in tests.items():
        case = cases[0]
        before, after = (predict_segmentation(one, first.plan, case.image, case.spacing_mm) for one in networks)
        scores = [
            average_dice([dice_per_label(one, case.segmentation, case.annotated, case.labels)], case.labels)["mean"]
            for one in (before, after)
        ]
        rows.append(
            ComparisonRow(
                _HOSPITALS[name].title,
                case.image[0],
                case.segmentation,
                before,
                after,
                case.spacing_mm,
                scores[0] or 0.0,
                scores[1] or 0.0,
            )
        )
    draw_comparison(path, rows, labels=first.plan.labels)
