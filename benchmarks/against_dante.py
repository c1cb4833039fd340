"""Our `train` beside `dante_train` on the same cases: seconds to Dante's final Dice, peak memory, final Dice.

    make test-interop      # once: the environment that has both
    .venv/bin/python benchmarks/against_dante.py [--dimensions 3] [--epochs 20] [--subjects 6] [--voxel-mm 4]

Ours runs in the environment of this script, Dante's in that of `--dante` (.venv-interop/bin/dante_train): its packages
would add to our memory.

Real: the T1 intensities and tissue maps of the ICBM152 2009a template. Simulated: the individuals (see
dafne_dante/demo/anatomy). Each trainer runs as its own command in a process of its own, one after the other, with its
own defaults but for architecture and epochs: Dante's U-Net has 32 channels and its fixed patch, ours is as planned.
An epoch is what each calls one. Dice is measured by our `evaluate` on TEST individuals that neither has seen. How soon
ours reaches Dante's Dice is told by whole trainings of fewer epochs (`--shorter`), each with a schedule of its own: the
seconds of the shortest whose model does at least as well on the TEST individuals. Our own held-out cases cost us
training data, as they do every user. Memory is the largest resident set of the process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from dafne_dante.demo.anatomy import LABELS
from dafne_dante.demo.scanners import SCANNER_A, make_case

TEST = 3


@dataclass(frozen=True)
class Run:
    """What a process came to: seconds, mebibytes at its height, and what it printed."""

    seconds: float
    mebibytes: float
    output: str


def write_subjects(folder: Path, subjects: Sequence[int], voxel_mm: float, *, archives: bool) -> Path:
    """Dante's archives, or a plain folder a case."""
    folder.mkdir(parents=True)
    for subject in subjects:
        image, segmentation, affine = make_case(SCANNER_A, subject, voxel_mm)
        masks = {label: (segmentation == value).astype(np.uint8) for value, label in enumerate(LABELS, start=1)}
        if archives:
            named = {f"mask_{label}": mask for label, mask in masks.items()}
            resolution = np.linalg.norm(affine[:3, :3], axis=0)
            np.savez(folder / f"{subject}.npz", data=image, resolution=resolution, affine=affine, **named)
            continue
        own = folder / str(subject)
        own.mkdir()
        nibabel.save(nibabel.Nifti1Image(image, affine), own / "image.nii.gz")
        for label, mask in masks.items():
            nibabel.save(nibabel.Nifti1Image(mask, affine), own / f"mask_{label}.nii.gz")
    return folder


def run(*command: object, folder: Path) -> Run:
    """Run a command to its end; RuntimeError with its last words when it fails."""
    environment = {**os.environ, "DAFNE_DANTE_CONFIG": str(folder / "configuration"), "CUDA_VISIBLE_DEVICES": ""}
    log = folder / "log"
    begin = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen([str(word) for word in command], stdout=stream, stderr=stream, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    text = log.read_text(errors="replace")
    if status:
        raise RuntimeError(text[-2000:])
    return Run(seconds, usage.ru_maxrss / 1024, text)


def dice_of(model: Path, test: Path, folder: Path) -> float:
    """Mean Dice on the test individuals."""
    done = run(
        sys.executable, "-m", "dafne_dante", "evaluate", "--model", model, "--data", test, "--json", folder=folder
    )
    return float(json.loads([line for line in done.output.splitlines() if line.startswith("{")][-1])["dice"]["mean"])


def train_ours(epochs: int, plain: Path, folder: Path, wanted: argparse.Namespace) -> tuple[Run, Path]:
    """Our command, and the model that it wrote."""
    out = folder / f"ours-{epochs}"
    done = run(
        wanted.ours, "-m", "dafne_dante", "train", "--data", plain, "--out", out, "--epochs", epochs,
        "--architecture", f"unet{wanted.dimensions}d", folder=folder,
    )  # fmt: skip
    return done, out / "model.model"


def compare(folder: Path, wanted: argparse.Namespace) -> None:
    """Print one line a trainer, and the ratios."""
    dimensions, epochs, subjects, voxel_mm = wanted.dimensions, wanted.epochs, wanted.subjects, wanted.voxel_mm
    archives = write_subjects(folder / "archives", range(subjects), voxel_mm, archives=True)
    plain = write_subjects(folder / "plain", range(subjects), voxel_mm, archives=False)
    test = write_subjects(folder / "test", range(100, 100 + TEST), voxel_mm, archives=False)
    options = ["--3d"] if dimensions == 3 else []
    theirs = run(
        wanted.dante,
        "--data",
        archives,
        "--output",
        folder / "theirs.model",
        "--epochs",
        epochs,
        *options,
        folder=folder,
    )
    their_dice = dice_of(folder / "theirs" / "theirs.model", test, folder)
    rows = []
    for number in sorted({*wanted.shorter, epochs}):
        done, model = train_ours(number, plain, folder, wanted)
        rows.append((number, done, dice_of(model, test, folder)))
    print(f"{'':14}{'epochs':>8}{'seconds':>10}{'MiB':>8}{'Dice':>8}")
    print(f"{'dante_train':14}{epochs:8}{theirs.seconds:10.1f}{theirs.mebibytes:8.0f}{their_dice:8.3f}")
    for number, done, dice in rows:
        print(f"{'dafne-dante':14}{number:8}{done.seconds:10.1f}{done.mebibytes:8.0f}{dice:8.3f}")
    reached = min((done.seconds for _, done, dice in rows if dice >= their_dice), default=None)
    share = "never" if reached is None else f"{reached / theirs.seconds:.2f} of its time"
    _, ours, our_dice = rows[-1]
    print(f"time to Dante's Dice: {share} (target 0.35); ", end="")
    print(f"memory: {ours.mebibytes / theirs.mebibytes:.2f} (target 0.40); Dice: {our_dice - their_dice:+.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, choices=(2, 3), default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--subjects", type=int, default=6)
    parser.add_argument("--voxel-mm", type=float, default=4.0)
    parser.add_argument("--dante", type=Path, default=Path(".venv-interop/bin/dante_train"))
    parser.add_argument("--shorter", type=int, nargs="*", default=[], help="epochs of further trainings of ours")
    parser.add_argument("--ours", type=Path, default=Path(sys.executable), help="Python of an environment of ours")
    parser.add_argument("--folder", type=Path, default=None, help="where everything is written; a temporary folder")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=wanted.folder) as temporary:
        compare(Path(temporary), wanted)
