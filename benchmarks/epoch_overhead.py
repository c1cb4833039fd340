"""What an epoch costs beyond its bare steps: ours over forward, loss, backward and AdamW on patches held in memory.

    python benchmarks/epoch_overhead.py [--epochs N] [--steps N] [--threads N] [ARCHITECTURE...]

Each epoch of `fit` is followed at once by as many bare steps of a copy of the same network, on patches that were drawn
before (same size, batch, dtype, and with the heads of deep supervision where training has them), so that a machine
whose speed drifts slows both. Ours draws, cuts, changes (all augmentation that `train` uses), clips the gradient,
measures the held-out case and writes the checkpoint; `steps_only` is without these two. The first epoch, which warms
up, is left out; printed are medians of the ratio of the others, and the highest. Exit code 1 when the median of whole
epochs is above 1.10. One JSON object a line on stdout.
"""

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.annotations.case import Case
from dafne_dante.models.build import build_network
from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.deep_supervision import AuxiliaryHeads, supervised_loss
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import PreparedCase, prepare_cases
from dafne_dante.training.sampling import PatchSampler

TARGET = 1.10
AUGMENTATION = Strengths(1.0, 0.5, 0.5, mirror=True)
LABELS = ("one", "two")
SHAPE = (72, 80, 64)  # X, Y, Z
SPACING = (1.0, 1.0, 1.0)
PLANS = {
    "unet2d": ModelPlan("unet2d", LABELS, 1, (96, 96), SPACING[1:], SHAPE[:2], levels=4, first_channels=32),
    "unet3d": ModelPlan("unet3d", LABELS, 1, (48, 48, 48), SPACING, SHAPE[::-1], levels=4, first_channels=16),
    "dynunet": ModelPlan(
        "dynunet", LABELS, 1, (48, 48, 48), SPACING, SHAPE[::-1],
        kernels=((3, 3, 3),) * 4, strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)), levels=0,
    ),
}  # fmt: skip
BATCH_SIZES = {"unet2d": 8, "unet3d": 2, "dynunet": 2}


def make_case(seed: int) -> Case:
    """Two blocks in noise, labelled throughout."""
    random = np.random.default_rng(seed)
    segmentation = np.zeros(SHAPE, np.uint8)
    segmentation[10:40, 20:50, 16:40], segmentation[44:60, 30:60, 20:50] = 1, 2
    image = (100 + 60 * segmentation + random.normal(0, 10, SHAPE)).astype(np.float32)[None]
    return Case(f"{seed}", image, segmentation, np.ones(SHAPE[2], np.bool_), np.eye(4), LABELS)


class BareSteps:
    """Forward, loss, backward and AdamW on a batch for each step, in memory."""

    def __init__(
        self, network: torch.nn.Module, plan: ModelPlan, recipe: Recipe, cases: list[PreparedCase], steps: int
    ) -> None:
        self._network = network.train()
        self._heads = AuxiliaryHeads(network) if recipe.deep_supervision else None
        moving = [*network.parameters(), *(self._heads.parameters() if self._heads else ())]
        self._optimizer = torch.optim.AdamW(moving, lr=1e-4)
        sampler = PatchSampler(cases, plan, seed=1)
        self._batches = [sampler.draw(recipe.batch_size) for _ in range(steps)]

    def seconds(self) -> float:
        """Take them all."""
        begin = time.perf_counter()
        for batch in self._batches:
            outputs = [self._network(batch.image), *(self._heads.outputs() if self._heads else ())]
            loss = supervised_loss(outputs, batch.target, batch.known)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
        return time.perf_counter() - begin


def measure(name: str, epochs: int, steps: int, folder: Path) -> dict[str, object]:
    """Ratios of the epochs after the first: whole, and their steps alone."""
    plan = PLANS[name]
    recipe = Recipe(
        epochs=epochs, steps_per_epoch=steps, batch_size=BATCH_SIZES[name], augmentation=AUGMENTATION,
        deep_supervision=name == "dynunet",
    )  # fmt: skip
    torch.manual_seed(0)
    network = build_network(plan)
    training, held_out = (prepare_cases([make_case(seed) for seed in seeds], plan) for seeds in (range(1, 5), (9,)))
    bare = BareSteps(copy.deepcopy(network), plan, recipe, training, steps)
    rows: list[tuple[float, float, float]] = []
    ended = 0.0

    def on_epoch(record: EpochRecord) -> None:
        nonlocal ended
        whole = time.perf_counter() - ended
        rows.append((record.train_seconds, whole, bare.seconds()))
        ended = time.perf_counter()

    fit(
        network, plan, FullFineTuning(), training, held_out,
        recipe=recipe, on_epoch=on_epoch, checkpoint=folder / name,
    )  # fmt: skip
    steps_only = [ours / alone for ours, _, alone in rows[1:]]
    ratios = [whole / alone for _, whole, alone in rows[1:]]
    return {
        "architecture": name,
        "patch": list(plan.patch),
        "batch_size": recipe.batch_size,
        "bare_step_ms": round(1000 * statistics.median(alone for _, _, alone in rows[1:]) / steps, 1),
        "ratio": round(statistics.median(ratios), 3),
        "highest": round(max(ratios), 3),
        "steps_only": round(statistics.median(steps_only), 3),
    }


def main() -> int:
    """Print a line for each architecture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("architectures", nargs="*", default=list(PLANS), metavar="ARCHITECTURE")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.architectures:
            found = measure(name, options.epochs, options.steps, Path(folder))
            print(json.dumps({"torch": torch.__version__, "threads": options.threads, **found}), flush=True)
            worst = max(worst, float(str(found["ratio"])))
    return int(worst > TARGET)


if __name__ == "__main__":
    sys.exit(main())
