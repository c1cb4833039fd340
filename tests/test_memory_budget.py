"""Budgets: what is given, what is found, and that real training steps stay within them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from phantoms import tiny_plan

from dafne_dante.errors import TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.planning.budget import find_budget, give_budget
from dafne_dante.models.planning.free_memory import free_bytes
from dafne_dante.models.planning.memory import measure_step

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "plan_memory.py"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read as Linux tells it")
def test_real_steps_stay_within_their_budget():
    """Child processes take the steps; what they use is not far below the budget either."""
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--steps", "2", "0.15", "0.3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["architecture"] for row in rows] == ["unet2d", "unet3d", "dynunet"] * 2
    for row in rows:
        assert 0.3 * row["budget_gb"] < row["measured_gb"] <= row["estimated_gb"] <= row["budget_gb"], row


def test_an_estimate_allocates_nothing_and_grows_with_the_batch():
    huge = measure_step(tiny_plan(patch=(512, 1024, 1024), first_channels=64))
    assert sum(huge.saved_bytes) > 10**11
    two, four = (huge.step_bytes(size, on_gpu=False) for size in (2, 4))
    assert 1.9 < four / two < 2.1
    assert huge.step_bytes(2, on_gpu=True) > sum(huge.saved_bytes)


@pytest.mark.parametrize("architecture", ["unet2d", "unet3d"])
def test_what_is_saved_is_what_autograd_saves(architecture):
    """The same network with values: what the backward pass needs, weights and a kernel's own notes apart."""
    plan = tiny_plan()
    if architecture == "unet2d":
        plan = replace(plan, architecture=architecture, patch=(96, 160), spacing_mm=(2.0, 2.0), median_shape=(90, 150))
    network, saved = build_network(plan).train(), {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def keep(tensor):
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            saved[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.zeros(1, 1, *plan.patch))
    real = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert sum(measure_step(plan).saved_bytes) == pytest.approx(real, rel=0.1)


def test_measuring_draws_no_number():
    plan = replace(tiny_plan(), architecture="unet2d", patch=(64, 64), spacing_mm=(2.0, 2.0), median_shape=(60, 60))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    measure_step(plan)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_a_budget_is_a_positive_number(value):
    with pytest.raises(TrainingError, match="expected a memory budget above 0"):
        give_budget(value, on_gpu=False)


def test_a_given_budget_is_taken_as_it_is():
    budget = give_budget(1.5, on_gpu=False)
    assert (budget.size_bytes, budget.on_gpu, dict(budget.most_voxels)) == (1_500_000_000, False, {})


def test_a_found_budget_leaves_half_to_others():
    budget = find_budget(torch.device("cpu"))
    free = free_bytes()
    if free is not None:
        assert budget.size_bytes <= max(0.6 * free, 1)
    assert budget.most_voxels.keys() == {"unet2d", "unet3d", "dynunet"}
    assert "GB" in budget.why


MEMINFO = "MemTotal:       32000000 kB\nMemAvailable:   16000000 kB\n"


def system(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


GROUP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 16_384_000_000),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/memory.max": "max\n", f"{GROUP}/memory.current": "5\n"},
         16_384_000_000),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/memory.max": "3000000000\n",
          f"{GROUP}/memory.current": "2000000000\n", f"{GROUP}/memory.stat": "anon 1\ninactive_file 500000000\n"},
         1_500_000_000),
        ({"proc/self/cgroup": "0::/a/b\n", f"{GROUP}/a/memory.max": "3000\n", f"{GROUP}/a/memory.current": "1000\n",
          f"{GROUP}/a/b/memory.max": "9000\n", f"{GROUP}/a/b/memory.current": "1000\n"}, 2_000),
        ({"proc/self/cgroup": "4:cpu:/x\n3:memory:/\n", f"{GROUP}/memory/memory.limit_in_bytes": "7000\n",
          f"{GROUP}/memory/memory.usage_in_bytes": "9000\n"}, 0),
        ({"proc/self/cgroup": "0::/../../up\n", f"{GROUP}/memory.max": "10\n", f"{GROUP}/memory.current": "4\n"}, 6),
        ({"proc/self/cgroup": "nonsense\n::\n0:memory"}, 16_384_000_000),
        ({"proc/self/cgroup": "0::/\n", f"{GROUP}/memory.max": "\xff²\n", f"{GROUP}/memory.current": ""},
         16_384_000_000),
    ],
    ids=["no groups", "no limit", "a container", "groups in a group", "version 1", "a group outside", "malformed",
         "malformed numbers"],
)  # fmt: skip
def test_free_memory_as_linux_tells_it(tmp_path, files, free):
    assert free_bytes(system(tmp_path, {"proc/meminfo": MEMINFO, **files})) == free


@pytest.mark.parametrize("meminfo", [None, "", "MemAvailable:\n", "MemAvailable: many kB\n"])
def test_a_system_that_does_not_tell(tmp_path, meminfo):
    root = system(tmp_path, {} if meminfo is None else {"proc/meminfo": meminfo})
    assert free_bytes(root) is None
