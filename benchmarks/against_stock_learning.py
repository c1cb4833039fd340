"""Our improvement beside stock Dafne's incremental learning, from one labelled 3D case of another scanner.

    make test-dafne        # once: the environment that has both
    .venv-dafne/bin/python benchmarks/against_stock_learning.py [--minutes 0.5] [--seeds 1]

Real: the T1 intensities and tissue maps of the ICBM152 2009a template. Simulated: the individuals and the scanners (see
dafne_dante/demo). A 3D U-Net is trained on four individuals of scanner A; then both learn from one individual of
scanner B, cut to 48 x 48 x 32 voxels, one after the other, in the same process and with the same threads: ours as
`improve --method auto --minutes` does, cross-fitting, quality gate and signed delta included; stock's as the client
calls it, with its own defaults. Dice is measured by our `evaluate` on two other individuals of scanner B. Seconds are
told by the clock and of the processor; on a machine that does other things too only the latter say something.
"""

import argparse
import io
import tempfile
import time
import uuid
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import torch
from dafne_dl.model_loaders import generic_load_model

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.annotations.case import Case
from dafne_dante.config import Settings
from dafne_dante.demo.anatomy import LABELS
from dafne_dante.demo.scanners import SCANNER_A, SCANNER_B, Scanner, make_case
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model, write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.stock_functions import stock_metadata, stock_sources
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, improve
from dafne_dante.training.defaults import recipe_from_scratch
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import Numerics
from dafne_dante.training.loop import fit
from dafne_dante.training.prepared import prepare_cases

SHAPE = (48, 48, 32)
PATCH, MEDIAN = (32, 40, 48), (32, 36, 45)  # of the network, (Z, X, Y), as `plan` chooses them for four individuals
VOXEL_MM = 4.0


class Seconds(NamedTuple):
    """By the clock, and of the processor over all threads."""

    clock: float
    processor: float


def now() -> Seconds:
    """Some moment."""
    return Seconds(time.perf_counter(), time.process_time())


def since(begin: Seconds) -> Seconds:
    """What has passed."""
    return Seconds(*(later - earlier for later, earlier in zip(now(), begin, strict=True)))


def individual(scanner: Scanner, subject: int) -> Case:
    """One individual, cut or filled to SHAPE."""
    image, segmentation, affine = make_case(scanner, subject, VOXEL_MM)
    sizes = list(zip(image.shape, SHAPE, strict=True))
    begins = [max(0, (have - want) // 2) for have, want in sizes]
    cut = tuple(slice(begin, begin + want) for begin, want in zip(begins, SHAPE, strict=True))
    fill = [(0, max(0, want - have)) for have, want in sizes]
    image, segmentation = np.pad(image[cut], fill), np.pad(segmentation[cut], fill)
    return Case(str(subject), image[None].astype(np.float32), segmentation, np.ones(SHAPE[2], bool), affine, LABELS)


def base_model(folder: Path, seed: int, epochs: int) -> Path:
    """A 3D U-Net of scanner A."""
    plan = ModelPlan("unet3d", LABELS, 1, PATCH, (VOXEL_MM,) * 3, MEDIAN, levels=4, first_channels=16)
    torch.manual_seed(seed)
    network = build_network(plan)
    cases = prepare_cases([individual(SCANNER_A, number) for number in range(5)], plan)
    recipe = recipe_from_scratch(epochs=epochs, seed=seed, numerics=Numerics())
    fit(network, plan, FullFineTuning(), cases[:4], cases[4:], recipe=recipe)
    path = folder / "base.model"
    weights, family = plain_weights(network), uuid.uuid4()
    write_model(GlobalModel(family, 1_700_000_000, plan, weights, stock_metadata(plan), stock_sources(plan)), path)
    return path


def dice(model: GlobalModel, cases: list[Case]) -> float:
    """Mean over cases and labels."""
    return float(evaluate_cases(build_network(model.plan, model.weights), model.plan, cases)["mean"] or 0.0)


def ours(folder: Path, base: Path, case: Case, minutes: float) -> tuple[GlobalModel, Seconds]:
    """The improved model, or the base where the gate says so, and seconds."""
    study = folder / "study"
    study.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(case.image[0], case.affine), study / "image.nii.gz")
    for value, label in enumerate(LABELS, start=1):
        mask = (case.segmentation == value).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, case.affine), study / f"{label}.nii.gz")
    begin = now()
    request = ImprovementRequest(CaseRequest((study,)), folder / "out", base, method="auto", minutes=minutes)
    summary = improve(request, Settings(folder=folder / "configuration"))
    seconds = since(begin)
    return read_model(folder / "out" / "improved.model" if summary.gate == "passed" else base), seconds


def stock(folder: Path, base: Path, case: Case) -> tuple[GlobalModel, Seconds]:
    """The model after stock learning, and seconds."""
    model = generic_load_model(io.BytesIO(base.read_bytes()), install_deps=False)
    masks = {label: case.segmentation == value for value, label in enumerate(LABELS, start=1)}
    spacing = np.array(case.spacing_mm)
    begin = now()
    with redirect_stdout(io.StringIO()):
        data = {"image_list": [case.image[0]], "resolution": spacing, "affine": case.affine}
        model.incremental_learn(data, [masks], bs=1, minTrainImages=1)
    seconds = since(begin)
    (folder / "stock.model").write_bytes(model.dumps())
    return read_model(folder / "stock.model"), seconds


def main() -> None:
    """Print one line a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5, help="of our improvement")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--pretraining-epochs", type=int, default=8)
    wanted = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, one case of {SHAPE}", flush=True)
    for seed in range(wanted.seeds):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            base = base_model(place, seed, wanted.pretraining_epochs)
            case, others = (
                individual(SCANNER_B, 20 + 10 * seed),
                [individual(SCANNER_B, 21 + 10 * seed + n) for n in (0, 1)],
            )
            before = dice(read_model(base), others)
            our_model, our_s = ours(place, base, case, wanted.minutes)
            stock_model, stock_s = stock(place, base, case)
            print(
                f"seed {seed}: Dice before {before:.3f}; ours {dice(our_model, others):.3f} in {our_s.clock:.1f} s "
                f"({our_s.processor:.1f} of the processor); stock {dice(stock_model, others):.3f} in "
                f"{stock_s.clock:.1f} s ({stock_s.processor:.1f}); ratios {our_s.clock / stock_s.clock:.3f}, "
                f"{our_s.processor / stock_s.processor:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
