"""Peak memory of real training steps against the budget that their plan was made for, on a CPU.

    python benchmarks/plan_memory.py [--steps N] GB...

Each budget is planned for with each architecture, for made-up cases that are larger than any patch; then a child
process takes the steps (forward, loss with deep supervision, backward, clipping, AdamW), and its peak resident memory
beyond what it began with, with torch and MONAI loaded, is what is measured. One JSON object a line on stdout; exit
code 1 when a step took more than its budget.
"""

import argparse
import json
import os
import resource
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from dafne_dante.models.build import build_network
from dafne_dante.models.configure import Configuration, configure_from_fingerprint
from dafne_dante.models.planning.budget import give_budget
from dafne_dante.models.planning.fingerprint import CaseFingerprint, Fingerprint, Intensities
from dafne_dante.training.deep_supervision import AuxiliaryHeads, supervised_loss
from dafne_dante.training.optimizer import adamw

ARCHITECTURES = ("unet2d", "unet3d", "dynunet")
LABELS = ("one", "two", "three")


def made_cases() -> Fingerprint:
    """Twenty cases of 200 x 300 x 300 voxels of 1 mm, two contrasts."""
    shape, contrast = (200, 300, 300), Intensities(100.0, 20.0, 50.0, 100.0, 180.0)
    one = CaseFingerprint(LABELS, (1.0, 1.0, 1.0), shape, shape, (contrast, contrast), 200, (1000, 1000, 1000))
    return Fingerprint((one,) * 20)


def take_steps(configuration: Configuration, steps: int) -> None:
    """The steps of a training, on random patches."""
    plan, batch = configuration.plan, configuration.batch_size
    network = build_network(plan).train()
    heads = AuxiliaryHeads(network) if plan.architecture == "dynunet" else None
    moving = [*network.parameters(), *(heads.parameters() if heads else ())]
    optimizer = adamw([{"params": moving}], 1e-3)
    for _ in range(steps):
        image = torch.rand(batch, plan.in_channels, *plan.patch)
        target = torch.randint(0, plan.out_channels, (batch, *plan.patch))
        outputs = [network(image), *(heads.outputs() if heads else ())]
        loss = supervised_loss(outputs, target, torch.ones_like(target, dtype=torch.bool))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()


def peak_bytes(configuration: Configuration, steps: int) -> int:
    """Peak memory of a child process that takes the steps, less what it began with."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        begun = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        take_steps(configuration, steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(write, str(peak - begun).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return int(answer.read())  # empty, and so an error, where the child failed


def main() -> int:
    """Measure what the command line asks for."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("budgets", type=float, nargs="+", metavar="GB")
    options = parser.parse_args()
    kept = True
    for budget in options.budgets:
        for architecture in ARCHITECTURES:
            configuration = configure_from_fingerprint(
                made_cases(), architecture, budget=give_budget(budget, on_gpu=False)
            )
            measured = peak_bytes(configuration, options.steps) / 1e9
            kept = kept and measured <= budget
            row = {
                "architecture": architecture,
                "patch": configuration.plan.patch,
                "batch_size": configuration.batch_size,
                "budget_gb": budget,
                "estimated_gb": round(configuration.estimated_bytes / 1e9, 3),
                "measured_gb": round(measured, 3),
            }
            print(json.dumps(row), flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
