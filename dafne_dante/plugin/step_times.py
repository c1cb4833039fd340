"""How long a training step of a model takes on this machine, measured once in two seconds and remembered.

Terms: `step-times.json` in the configuration folder holds for each machine (its name, torch, device and threads, as a
digest) and model type the seconds of a step, the bytes of the model's weights, and a digest of its plan.

Invariants
- The first step that is timed is a small part of a whole one; a larger one follows only where it will still be done
  within the time, and what was timed last is scaled to the whole by its voxels.
- The measuring process is another one, with a worker's threads and priority; whoever asks for it waits in a thread.
- The file is a cache: what cannot be understood in it is measured anew.
"""

import hashlib
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from dafne_dante.config import Settings
from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import StorageError, TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.plan import ModelPlan, plan_to_net_metadata
from dafne_dante.plugin.thrift import Thrift
from dafne_dante.plugin.worker_limits import threads_for
from dafne_dante.training.hardware import choose_device

__all__ = ["StepTime", "known_step", "measure_elsewhere", "measure_step", "step_by_parts"]

MOST_S = 2.0
_FILE = "step-times.json"
_MAX_BYTES = 1 << 20
_PARTS = ((1, 3), (1, 2), (1, 1), (1, 0), (2, 0))
"""Patches in a step, and how often the patch is halved: an eighth of one patch first, then more."""
_WAIT_S = 300.0
_COMMAND = (sys.executable, "-m", "dafne_dante")

Timed = Callable[[int, tuple[int, ...]], float]
"""Seconds of one step with so many patches of a size."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step of two patches in which everything moves, and bytes of the weights."""

    seconds: float
    model_bytes: int


def known_step(settings: Settings, model_type: str, plan: ModelPlan | None = None) -> StepTime | None:
    """What was measured here of this type, and of this plan if one is named; None where nothing was."""
    found = _load(settings).get(_machine(settings), {}).get(model_type)
    try:
        if found is None or (plan is not None and found["plan"] != _digest(repr(replace(plan, extra={})))):
            return None
        seconds, model_bytes = float(found["seconds"]), int(found["model_bytes"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return StepTime(seconds, model_bytes) if 0 < seconds < math.inf and model_bytes > 0 else None


def measure_step(settings: Settings, model_type: str, plan: ModelPlan) -> StepTime:
    """Measure and remember; for a process of its own, in which nothing else computes. StorageError as `durable`."""
    network = build_network(plan).to(choose_device()).train()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())

    def timed(patches: int, patch: tuple[int, ...]) -> float:
        batch = torch.zeros(patches, plan.in_channels, *patch, device=choose_device())
        begin = time.perf_counter()
        network(batch).float().square().mean().backward()
        if batch.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    found = StepTime(step_by_parts(plan, timed), weights)
    everything = _load(settings)
    of_machine = everything.setdefault(_machine(settings), {})
    of_machine[model_type] = {**asdict(found), "plan": _digest(repr(replace(plan, extra={})))}
    write_atomically(make_folder(settings.folder) / _FILE, json.dumps(everything, sort_keys=True).encode())
    return found


def step_by_parts(plan: ModelPlan, timed: Timed, *, most_s: float = MOST_S) -> float:
    """Seconds of a whole step, from as large a part of one as there is time for."""
    whole = 2 * math.prod(plan.patch)
    spent_s, seconds, voxels = 0.0, 0.0, 0
    for patches, halvings in _PARTS:
        patch = Thrift(patches, halvings).plan_to_train_by(plan).patch
        size = patches * math.prod(patch)
        if voxels and (size == voxels or spent_s + seconds * size / voxels > most_s):
            continue
        seconds, voxels = timed(patches, patch), size
        spent_s += seconds
    if voxels == whole and spent_s + seconds <= most_s:
        seconds = min(seconds, timed(2, plan.patch))  # the first of a size also warms up
    return seconds * whole / voxels


def measure_elsewhere(
    settings: Settings, model_type: str, plan: ModelPlan, *, command: Sequence[str] = _COMMAND
) -> StepTime | None:
    """What is known, else what another process measures; may take a minute.

    Raises:
        TrainingError: that process failed, or took too long.
    """
    if known := known_step(settings, model_type, plan):
        return known
    try:
        done = subprocess.run(  # noqa: S603 (our own program)
            [*command, "measure-step", "--type", model_type, "--configuration", str(settings.folder)],
            input=json.dumps(plan_to_net_metadata(plan)).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_WAIT_S,
            check=False,
            creationflags=_without_a_window(),
        )
    except (OSError, subprocess.TimeoutExpired, TypeError, ValueError) as error:
        raise TrainingError(f"expected to measure a training step, found {type(error).__name__}") from error
    if done.returncode:
        raise TrainingError(f"expected to measure a training step, found that it ended with {done.returncode}")
    return known_step(settings, model_type, plan)


def _without_a_window() -> int:
    if sys.platform == "win32":
        return subprocess.CREATE_NO_WINDOW
    return 0


def _machine(settings: Settings) -> str:
    device = "cuda" if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    return _digest(f"{platform.node()}|{torch.__version__}|{device}|{threads_for(settings.worker)}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _load(settings: Settings) -> dict[str, dict[str, Mapping[str, Any]]]:
    path = settings.folder / _FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(read_bounded(path, max_bytes=_MAX_BYTES))
    except (StorageError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(key): value for key, value in found.items() if isinstance(value, dict)}
