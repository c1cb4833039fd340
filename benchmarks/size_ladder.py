"""Time and memory of `train` as cases get more, and as they get larger.

    python benchmarks/size_ladder.py [--epochs N] [--memory-gb GB] [--architecture A] [--picture FILE]

Real: the T1 intensities and tissue maps of the ICBM152 2009a template. Simulated: the individuals, stretched to cubes
of the size asked for. Each rung is the command `train` in a process of its own, on one thread: 4, 8, 16 and 32 cases
of 64^3, and 4 cases of 32^3 to 128^3, under one memory budget. Memory is the largest resident set of the process less
that of the smallest rung's start (a process that has loaded everything and trained nothing). Printed are a table in
Markdown and, for each ladder, the slope of a line through the logarithms of cost and of voxels: 1 is linear growth.
Exit code 1 when a slope is above 1.1. A 3D network's step is over a patch, which grows with small cases only.
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
from matplotlib.figure import Figure
from scipy import ndimage

from dafne_dante.demo.anatomy import LABELS
from dafne_dante.demo.scanners import SCANNER_A, make_case

CASES = ((4, 64), (8, 64), (16, 64), (32, 64))
SIZES = ((4, 32), (4, 64), (4, 96), (4, 128))
LARGEST_SLOPE = 1.1
VOXEL_MM = 6.0
START = "import dafne_dante.plugin.training, monai, matplotlib.figure, scipy.ndimage"


@dataclass(frozen=True)
class Rung:
    """cases of side^3 voxels; seconds of the whole command and of an epoch after the first; mebibytes at its height."""

    cases: int
    side: int
    seconds: float
    epoch_seconds: float
    mebibytes: float

    @property
    def voxels(self) -> int:
        """Of all cases together."""
        return self.cases * self.side**3


def write_cases(folder: Path, count: int, side: int) -> Path:
    """A plain folder a case."""
    for subject in range(count):
        image, segmentation, affine = make_case(SCANNER_A, subject, VOXEL_MM)
        zoom = [side / size for size in image.shape]
        stretched = np.maximum(ndimage.zoom(image, zoom, order=1, grid_mode=True, mode="nearest"), 0)
        labels = ndimage.zoom(segmentation, zoom, order=0, grid_mode=True, mode="nearest")
        own = folder / f"case{subject:02d}"
        own.mkdir(parents=True)
        shrunk = affine @ np.diag([*(1 / np.asarray(zoom)), 1.0])
        nibabel.save(nibabel.Nifti1Image(stretched.astype(np.float32), shrunk), own / "image.nii.gz")
        for value, label in enumerate(LABELS, start=1):
            mask = (labels == value).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(mask, shrunk), own / f"mask_{label}.nii.gz")
    return folder


def run(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Seconds and mebibytes of a command on one thread; RuntimeError with its last words when it fails."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "DAFNE_DANTE_CONFIG": str(folder / "configuration")}
    log = folder / "log"
    begin = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, *command], stdout=stream, stderr=stream, env=variables)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(log.read_text(errors="replace")[-2000:])
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def climb(cases: int, side: int, options: argparse.Namespace) -> Rung:
    """One rung."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, out = write_cases(folder / "data", cases, side), folder / "out"
        command = ["-m", "dafne_dante", "train", "--data", data, "--out", out, "--epochs", options.epochs,
                   "--architecture", options.architecture, "--memory-gb", options.memory_gb]  # fmt: skip
        seconds, mebibytes = run([str(word) for word in command], folder)
        ends = [float(line.split(",")[1]) for line in (out / "history.csv").read_text().splitlines()[1:]]
    return Rung(cases, side, seconds, float(np.median(np.diff(ends))), mebibytes)


def slope(rungs: Sequence[Rung], costs: Sequence[float]) -> float:
    """Of log cost over log voxels."""
    return float(np.polyfit(np.log([rung.voxels for rung in rungs]), np.log(costs), 1)[0])


def draw(path: Path, ladders: dict[str, list[Rung]], start_mib: float) -> None:
    """Seconds and mebibytes over voxels, both axes logarithmic."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, title, cost in zip(
        figure.subplots(1, 2),
        ("seconds of the command", "MiB beyond the start"),
        (lambda rung: rung.seconds, lambda rung: rung.mebibytes - start_mib),
        strict=True,
    ):
        for (name, rungs), marker in zip(ladders.items(), "os", strict=True):
            axes.loglog([rung.voxels for rung in rungs], [cost(rung) for rung in rungs], marker + "-", label=name)
        first = ladders["more cases"][0]
        ends = np.array([rung.voxels for rungs in ladders.values() for rung in rungs])
        span = np.array([ends.min(), ends.max()])
        axes.loglog(span, cost(first) * span / first.voxels, ":", color="grey", label="linear")
        axes.set_xlabel("voxels of all cases")
        axes.set_title(title)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> int:
    """Print the table and the slopes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--memory-gb", type=float, default=1.0)
    parser.add_argument("--architecture", default="unet3d")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _, start_mib = run(["-c", START], Path(folder))
    print("| cases | size | seconds | seconds an epoch | MiB beyond the start |")
    print("|---|---|---|---|---|")
    rungs = {}
    for cases, side in dict.fromkeys((*CASES, *SIZES)):
        rung = rungs[cases, side] = climb(cases, side, options)
        beyond = rung.mebibytes - start_mib
        print(f"| {cases} | {side}^3 | {rung.seconds:.1f} | {rung.epoch_seconds:.2f} | {beyond:.0f} |", flush=True)
    ladders = {"more cases": [rungs[key] for key in CASES], "larger cases": [rungs[key] for key in SIZES]}
    slopes = {
        name: {
            "seconds": round(slope(ladder, [rung.seconds for rung in ladder]), 2),
            "memory": round(slope(ladder, [rung.mebibytes - start_mib for rung in ladder]), 2),
        }
        for name, ladder in ladders.items()
    }
    print(json.dumps(slopes))
    if options.picture is not None:
        draw(options.picture, ladders, start_mib)
    return int(max(value for found in slopes.values() for value in found.values()) > LARGEST_SLOPE)


if __name__ == "__main__":
    sys.exit(main())
