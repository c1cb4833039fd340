"""The optimiser is PyTorch's AdamW, and loads no compiler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from dafne_dante.training.optimizer import adamw


def trained(make, steps=7):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(), nn.Conv2d(4, 2, 3))
    first, later = list(network[0].parameters()), list(network[2].parameters())
    optimizer = make([{"params": first, "weight_decay": 0.1}])
    for step in range(steps):
        if step == 3:
            optimizer.add_param_group({"params": later, "lr": 5e-3})
        optimizer.zero_grad(set_to_none=True)
        network(torch.randn(2, 1, 9, 9)).square().mean().backward()
        optimizer.step()
    return network, optimizer


@pytest.mark.parametrize("fused", [False, True])
def test_the_numbers_are_those_of_pytorch(fused):
    ours, optimizer = trained(lambda groups: adamw(groups, 1e-2))
    theirs, _ = trained(lambda groups: torch.optim.AdamW(groups, lr=1e-2, fused=fused))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0 if fused else 1e-5, atol=0 if fused else 1e-7)
    assert isinstance(optimizer, torch.optim.AdamW)


def test_its_state_goes_into_another():
    network, optimizer = trained(lambda groups: adamw(groups, 1e-2))
    other = adamw([{"params": list(network[0].parameters())}, {"params": list(network[2].parameters())}], 1.0)
    other.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in other.param_groups] == [1e-2, 5e-3]
    weight = network[0].weight
    assert torch.equal(other.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg"])


def test_planning_and_training_in_2d_load_no_compiler():
    """A process of its own: pytest's has loaded whatever other tests did."""
    program = """
import sys, torch
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.planning.memory import measure_step
from dafne_dante.training.optimizer import adamw
plan = ModelPlan("unet2d", ("a",), 1, (32, 32), (1.0, 1.0), (32, 32), levels=3, first_channels=4)
measure_step(plan)
weight = torch.ones(3, requires_grad=True)
optimizer = adamw([{"params": [weight]}], 0.1)
optimizer.zero_grad()
weight.sum().backward()
optimizer.step()
print(*sorted({"sympy", "torch._dynamo"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
