"""What `auto` chose for one improvement, kept beside its checkpoint so that a resumed one is trained alike.

Where there is a time budget, how long a step takes decides how many epochs there are, and that is never measured twice
alike; so the choice is written down (`choice.json` in the output folder) before anything is trained, and goes with the
checkpoint. Without a budget the choice follows from the cases and the model.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from dafne_dante.adaptation.method import METHOD_NAMES
from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.plan import ModelPlan
from dafne_dante.plugin.division import Division
from dafne_dante.training.choice import Choice, Situation, choose
from dafne_dante.training.hardware import choose_device

__all__ = ["CHOICE", "choice_for", "choice_kept_beside", "kept_choice", "situation_of", "step_seconds"]

CHOICE = "choice.json"
_MAX_BYTES = 1 << 14
_TIMED_STEPS = 2


def choice_for(out: Path, situation: Callable[[], Situation], *, resume: bool) -> Choice:
    """The choice that a training in `out` was begun with where it goes on, else a new one, which is kept.

    Raises:
        TrainingError: what was kept is no choice.
        StorageError: it cannot be read or written.
    """
    if kept := kept_choice(out, resume=resume):
        return kept
    known = situation()
    choice = choose(known)
    if known.minutes is not None:
        write_atomically(make_folder(out) / CHOICE, json.dumps(asdict(choice)).encode())
    return choice


def kept_choice(out: Path, *, resume: bool) -> Choice | None:
    """The choice that a training in `out` was begun with, where it goes on and one was kept; errors as `choice_for`."""
    return _read(out / CHOICE) if resume and (out / CHOICE).exists() else None


@contextmanager
def choice_kept_beside(checkpoint: Path) -> Iterator[None]:
    """Whatever ends the block, a choice stays only beside the checkpoint of what it was made for."""
    try:
        yield
    finally:
        if not checkpoint.exists():
            (checkpoint.parent / CHOICE).unlink(missing_ok=True)


def situation_of(
    base: GlobalModel, division: Division, zero_shot: float, *, minutes: float | None = None, step_s: float = 0.0
) -> Situation:
    """What is known before training; how long a step takes only matters with a budget."""
    trainings = len(division.folds) + 1 if division.is_cross_fit else 1
    return Situation(
        studies=division.learned_from,
        zero_shot=zero_shot,
        step_seconds=step_s,
        minutes=minutes,
        trainings=trainings,
        dimensions=base.plan.dimensions,
        one_training=division.is_one_of_many,
        replay=division.replay_factor,
    )


def step_seconds(base: GlobalModel, batch_size: int) -> float:
    """Of one step, forward and backward, in which everything moves: the faster of two after one that warms up."""
    network = build_network(base.plan, base.weights).to(choose_device())
    return _step_seconds(network, base.plan, batch_size)


def _step_seconds(network: nn.Module, plan: ModelPlan, batch_size: int) -> float:
    device = next(network.parameters()).device
    batch = torch.zeros(batch_size, plan.in_channels, *plan.patch, device=device)
    network.train()
    times: list[float] = []
    for _ in range(1 + _TIMED_STEPS):
        begin = time.perf_counter()
        network(batch).float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def _read(path: Path) -> Choice:
    try:
        found = json.loads(read_bounded(path, max_bytes=_MAX_BYTES))
        numbers = int(found["rank"]), float(found["learning_rate"]), int(found["epochs"])
        rest = int(found["steps"]), bool(found["one_training"])
        choice = Choice(str(found["method"]), *numbers, str(found["why"]), *rest)
        if not 1 <= choice.steps <= 10_000:
            raise ValueError("out of range")
        if choice.method not in METHOD_NAMES or not 1 <= choice.rank <= 1024 or not 1 <= choice.epochs <= 10_000:
            raise ValueError("out of range")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise TrainingError(f"expected the choice of a training in {path.name}, found a fault; remove it") from error
    return choice
