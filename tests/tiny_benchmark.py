"""A benchmark of two methods, one target and two epochs on phantoms of 24 voxels a side; as a program it runs it."""

import os
import signal
import sys
from pathlib import Path

from phantoms import make_case, tiny_plan

from dafne_dante.benchmark.benchmark import BenchmarkRequest, run_benchmark
from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.protocol import Effort, Grid
from dafne_dante.errors import TrainingError


def domain(name, people):
    """One phantom a person, told by its seed."""
    cases = [make_case(person, shape=(24, 24, 24)) for person in people]
    return Domain(name, cases[0].labels, cases, tuple(f"person {person}" for person in people))


def request(out, *, epochs=2, first=0, methods=("scratch", "lora"), shots=(1,)):
    """The benchmark, or one that differs."""
    grid = Grid(("one",), methods, shots=shots, pretrainings=("rich",), seeds=(0,))
    return BenchmarkRequest(
        out=Path(out),
        grid=grid,
        effort=Effort(epochs=epochs, steps_per_epoch=3, pretraining_epochs=1),
        source=domain("source", range(first, first + 4)),
        targets={"one": domain("one", range(20, 24))},
        plan=tiny_plan(),
        jobs=1,
    )


def refuse(words):
    """A task that cannot be done."""
    raise TrainingError(words)


def take_memory_of_a_killed():
    """A task whose process the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run_benchmark(request(sys.argv[1]))
