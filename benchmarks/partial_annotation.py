"""What a network learns when somebody labelled only some slices: the others unknown, or taken for background.

Run: python benchmarks/partial_annotation.py [--seeds 3] [--networks 2D 3D] [--picture partial_annotation.png]

Real: the T1 intensities and the maps of grey and white matter (ICBM152 2009a template, see dafne_dante/demo/anatomy).
Simulated: the individuals, the scanner, and the person who labels every n-th slice (drawn perfectly, without regard to
what the slice shows). A small U-Net is trained from nothing on SUBJECTS individuals; what is reported is mean Dice over
both tissues on other individuals, labelled throughout, in their own grid. All ways of one seed begin with the same
weights and take the same number of steps.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.annotations.case import Case
from dafne_dante.demo.anatomy import LABELS
from dafne_dante.demo.scanners import SCANNER_A, make_case
from dafne_dante.models.build import build_network
from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases

VOXEL_MM = 5.0
SUBJECTS, TEST_SUBJECTS = 4, 3
SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)
PLANS = {
    "3D": ModelPlan("unet3d", LABELS, 1, (24, 32, 32), (VOXEL_MM,) * 3, (29, 30, 36), levels=3, first_channels=8),
    "2D": ModelPlan("unet2d", LABELS, 1, (32, 32), (6.5, 6.5), (23, 28), levels=3, first_channels=16),
}
RECIPES = {
    "3D": Recipe(epochs=8, steps_per_epoch=20, batch_size=2, learning_rate=5e-3),
    "2D": Recipe(epochs=8, steps_per_epoch=25, batch_size=8, learning_rate=5e-3),
}


@cache
def labelled_throughout(subject: int) -> Case:
    """One individual, without the slices of air above and below; nobody labels those, and a 2D network sees them."""
    image, segmentation, affine = make_case(SCANNER_A, subject, VOXEL_MM)
    brain = np.flatnonzero((image > 0).any(axis=(0, 1)))
    image, segmentation = (volume[..., brain[0] : brain[-1] + 1] for volume in (image, segmentation))
    return Case(f"subject {subject}", image[None], segmentation, np.ones(image.shape[2], bool), affine, LABELS)


def labelled_slices(case: Case, share: float) -> np.ndarray:
    """Which slices are labelled: evenly spaced, at least one."""
    slices = case.shape[2]
    number = max(1, round(share * slices))
    return np.isin(np.arange(slices), ((np.arange(number) + 0.5) * slices / number).astype(int))


def as_labelled(case: Case, share: float, *, unknown: bool) -> Case:
    """The case as that person leaves it, the rest unknown or taken for background."""
    annotated = labelled_slices(case, share)
    segmentation = np.where(annotated, case.segmentation, 0).astype(np.uint8)
    return dataclasses.replace(
        case, segmentation=segmentation, annotated=annotated if unknown else np.ones_like(annotated)
    )


def dice_after_training(kind: str, cases: Sequence[Case], test: Sequence[Case], seed: int) -> float:
    """Mean Dice on the test cases."""
    torch.manual_seed(seed)
    network = build_network(PLANS[kind])
    recipe = dataclasses.replace(RECIPES[kind], seed=seed)
    fit(network, PLANS[kind], FullFineTuning(), prepare_cases(cases, PLANS[kind]), [], recipe=recipe)
    return evaluate_cases(network, PLANS[kind], test)["mean"] or 0.0


def measure(kind: str, share: float, seeds: int) -> dict[str, list[float]]:
    """Dice of each seed by what the other slices count as."""
    found: dict[str, list[float]] = {"unknown": [], "background": []}
    for seed in range(seeds):
        cases = [labelled_throughout(10 * seed + number) for number in range(SUBJECTS)]
        test = [labelled_throughout(1000 + 10 * seed + number) for number in range(TEST_SUBJECTS)]
        for way, values in found.items():
            if share < 1 or way == "unknown":
                some = [as_labelled(case, share, unknown=way == "unknown") for case in cases]
                values.append(dice_after_training(kind, some, test, seed))
    return found


def told(values: Sequence[float]) -> str:
    """Mean and range."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})" if values else ""


def draw(
    path: Path, networks: Sequence[str], results: Mapping[tuple[str, float], Mapping[str, Sequence[float]]]
) -> None:
    """Dice over the share of labelled slices, one panel a network."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    for kind, panel in zip(networks, panels, strict=True):
        for way, mark in (("unknown", "o-"), ("background", "s--")):
            shares = [share for share in SHARES if results[kind, share][way]]
            means = [statistics.mean(results[kind, share][way]) for share in shares]
            panel.plot([100 * share for share in shares], means, mark, label=f"other slices {way}")
        panel.set(title=f"{kind} U-Net", xlabel="labelled slices, %", xscale="log", ylim=(0, 1))
        panel.set_xticks([100 * share for share in SHARES], [f"{100 * share:g}" for share in SHARES])
    panels[0].set_ylabel("Dice on new individuals")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def main(seeds: int, networks: Sequence[str], picture: Path | None) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    results = {}
    print(f"torch {torch.__version__}, one thread, {seeds} seeds, {SUBJECTS} subjects of {VOXEL_MM:g} mm voxels")
    print("\n| network | labelled slices | others unknown | others background |\n|---|---|---|---|")
    for kind in networks:
        for share in SHARES:
            found = results[kind, share] = measure(kind, share, seeds)
            number = int(labelled_slices(labelled_throughout(0), share).sum())
            print(
                f"| {kind} | {share:.0%} ({number}) | {told(found['unknown'])} | {told(found['background'])} |",
                flush=True,
            )
    if picture:
        draw(picture, networks, results)
    print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    main(arguments.seeds, arguments.networks, arguments.picture)
