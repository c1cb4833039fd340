"""A hundred hospitals on this machine, simulated by Flower: `make flower-demo`.

Each has three brains of its own from one of two scanners and a signing key; the operator has the first global model,
signed by a key that every site has pinned, two cases of its own and the list of sites' keys. Every site improves the
model with the same code as in a hospital, and one round's deltas are merged with the same code as at an operator. One
site sends what was changed on its way, another one signs with a key that is on nobody's list.
"""

import os
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from dafne_dante.annotations.folders import read_cases
from dafne_dante.config import Settings
from dafne_dante.delta.signing import ensure_signing_key, public_key_text, trust_key
from dafne_dante.demo.anatomy import LABELS
from dafne_dante.demo.scanners import SCANNER_A, SCANNER_B, write_hospital
from dafne_dante.durable import make_folder
from dafne_dante.federation.aggregator import OperatorMerge
from dafne_dante.federation.depot import FolderDepot
from dafne_dante.federation.flower import DeltaStrategy, SiteTrust, site_app
from dafne_dante.federation.merge_report import MergeReport
from dafne_dante.federation.published_versions import hand_in
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.plan import ModelPlan
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import improve
from dafne_dante.plugin.improvement_request import ImprovementRequest
from dafne_dante.training.scratch import ScratchWish, train_on

__all__ = ["improve_at_site", "main", "make_operator", "run_flower_demo", "site_settings"]

MODEL_TYPE = "Brain"
_SERVER = "https://federation.example/"
_VOXEL_MM = 8.0
_OPERATOR_SUBJECTS, _FIRST_SUBJECTS, _FIRST_SITE_SUBJECT = (5_000, 5_001), range(4_000, 4_006), 6_000
_FIRST_EPOCHS = 12
_DICE_MARGIN = 0.015
_MARKER = ".dafne-dante-flower-demo"
_CHANGED, _UNKNOWN = 7, 9
"""Sites whose delta is changed on its way, and whose key nobody trusts."""
_PLAN = ModelPlan("unet3d", LABELS, 1, (16,) * 3, (_VOXEL_MM,) * 3, (18, 22, 18), levels=2, first_channels=8)


def improve_at_site(root: Path, model: Path, out: Path, node: Mapping[str, Any]) -> Path | None:
    """The local update of a simulated hospital; errors are those of `improve`."""
    torch.set_num_threads(1)
    number = int(node["partition-id"])
    site = root / "sites" / f"{number}"
    if not (site / "cases").exists():
        subjects = [_FIRST_SITE_SUBJECT + 3 * number + each for each in range(3)]
        write_hospital(site / "cases", SCANNER_B if number % 2 else SCANNER_A, subjects, voxel_mm=_VOXEL_MM)
    request = ImprovementRequest(
        CaseRequest((site / "cases",)), out, base=model, model_type=MODEL_TYPE, method="lora", epochs=2, seed=number
    )
    summary = improve(request, Settings(site / "configuration"))
    delta = out / "update.delta"
    if number == _CHANGED:
        delta.write_bytes(delta.read_bytes()[:-4] + bytes(4))
    return delta if summary.gate == "passed" else None


def site_settings(root: Path, operator_key: str, node: Mapping[str, Any]) -> Settings:
    """The settings of a simulated hospital, which has the operator's key from a telephone call."""
    return Settings(root / "sites" / f"{int(node['partition-id'])}" / "configuration", operator_key=operator_key)


def run_flower_demo(root: Path, sites: int = 100) -> MergeReport:
    """Make the federation in `root`, run one round, and return what the merge came to; errors as train_on."""
    settings = make_operator(root, sites)
    validation = read_cases(root / "operator-cases", labels=LABELS)
    strategy = DeltaStrategy(root / "types", MODEL_TYPE, OperatorMerge(MODEL_TYPE, validation, settings))
    operator_key = public_key_text(ensure_signing_key(settings.folder))
    trust = SiteTrust(MODEL_TYPE, _SERVER, partial(site_settings, root, operator_key))
    server = ServerApp()

    @server.main()  # type: ignore[untyped-decorator]
    def main(grid: Grid, context: Any) -> None:
        while len(list(grid.get_node_ids())) < sites:
            time.sleep(0.2)
        strategy.start(grid, ArrayRecord(), num_rounds=1)

    run_simulation(
        server_app=server,
        client_app=site_app(partial(improve_at_site, root), trust),
        num_supernodes=sites,
        backend_config={"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": os.cpu_count() or 1}},
    )
    return strategy.reports[-1]


def make_operator(root: Path, sites: int) -> Settings:
    """The first global model, signed, on the shelf, the operator's cases, and the sites' keys but one on its list."""
    settings = Settings(root / "operator", dice_margin=_DICE_MARGIN)
    write_hospital(root / "operator-cases", SCANNER_B, _OPERATOR_SUBJECTS, voxel_mm=_VOXEL_MM)
    write_hospital(root / "first-cases", SCANNER_A, _FIRST_SUBJECTS, voxel_mm=_VOXEL_MM)
    cases = read_cases(root / "first-cases", labels=LABELS)
    trained = train_on(_PLAN, 2, cases[1:], cases[:1], ScratchWish(root / "cache", epochs=_FIRST_EPOCHS))
    shelf = Shelf(make_folder(root / "types"))
    shelf.add_type(MODEL_TYPE, {"categories": list(LABELS), "dafne_dante": {"delta": 1}})
    ensure_signing_key(settings.folder)
    hand_in(FolderDepot(root / "types", MODEL_TYPE), MODEL_TYPE, trained.model, settings)
    for number in range(sites):
        key = public_key_text(ensure_signing_key(root / "sites" / f"{number}" / "configuration"))
        if number != _UNKNOWN:
            trust_key(settings.folder, key, f"site {number}")
    return settings


def main() -> None:
    """Run it in flower-demo-output/, and say what came out."""
    root, begin = Path("flower-demo-output").resolve(), time.perf_counter()
    if root.exists() and not (root / _MARKER).exists():
        raise SystemExit(f"expected {root.name} to be new or an earlier demonstration's; move it away")
    shutil.rmtree(root, ignore_errors=True)
    (make_folder(root) / _MARKER).touch()
    report = run_flower_demo(root)
    print(f"merged {report.merged} updates into version {report.version}, refused {len(report.quarantined)}:")
    for refusal in report.quarantined:
        print(f"  {refusal.reason}")
    before, after = report.dice_before["mean"] or 0, report.dice_after["mean"] or 0
    print(f"Dice on the operator's cases {before:.3f} -> {after:.3f}, in {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
