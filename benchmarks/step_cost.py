"""What one training step costs by LoRA and with frozen stages, as a share of full fine-tuning, side by side.

Run: python benchmarks/step_cost.py [rounds]. The methods take turns, so that a machine whose speed drifts slows all
of them; printed is the median over rounds of each round's ratio to full fine-tuning.
"""

import copy
import statistics
import sys
import time

import torch
from torch import nn

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.adaptation.gradual import GradualUnfreezing
from dafne_dante.adaptation.low_rank_method import LowRankAdaptation
from dafne_dante.adaptation.protocol import Method
from dafne_dante.models.build import build_network
from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.losses import dice_cross_entropy

PLAN = ModelPlan("unet3d", ("a", "b"), 1, (32, 32, 40), (1.0, 1.0, 1.0), (32, 32, 40), levels=4, first_channels=16)
STEPS = 3


def prepared(method: Method) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network with the method's parameters in an optimiser."""
    torch.manual_seed(0)
    network = build_network(PLAN).train()
    method.prepare(network, torch.zeros(1, 1, *PLAN.patch))
    parameters = [one for group in method.parameter_groups(network) for one in group.parameters]
    return network, torch.optim.AdamW(parameters, lr=1e-4)


def seconds(network: nn.Module, optimizer: torch.optim.Optimizer, image: torch.Tensor, target: torch.Tensor) -> float:
    """Process time of a few steps."""
    known = torch.ones_like(target, dtype=torch.bool)
    begin = time.process_time()
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        dice_cross_entropy(network(image), target, known).backward()
        optimizer.step()
    return time.process_time() - begin


def main(rounds: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    methods = {"full": FullFineTuning(), "lora": LowRankAdaptation(), "half frozen": GradualUnfreezing()}
    ready = {name: prepared(copy.deepcopy(method)) for name, method in methods.items()}
    image, target = torch.randn(2, 1, *PLAN.patch), torch.randint(0, 3, (2, *PLAN.patch))
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds + 1):
        for name, (network, optimizer) in ready.items():
            times[name].append(seconds(network, optimizer, image, target))
    print(
        f"torch {torch.__version__}, one thread, {rounds} rounds of {STEPS} steps, float32, patch {PLAN.patch}, batch 2"
    )
    for name, values in times.items():
        ratios = [value / full for value, full in zip(values[1:], times["full"][1:], strict=True)]
        live = sum(one.numel() for one in ready[name][0].parameters() if one.requires_grad)
        print(f"{name:12} {statistics.median(ratios):5.2f} of a full step, {live:>9,} numbers move")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
