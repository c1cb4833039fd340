"""Device and numerics: threads, float32 or bfloat16, plain or channels-last memory, whichever is fastest here.

Terms: numerics are these choices; a probe times training steps of the network itself, one choice after the other, each
with the best of those before. The answer is remembered in a small file per machine, network and torch version, so that
runs on one machine repeat exactly and the probe is paid once.

Invariants: float16 is never used (14 times slower than float32 on a CPU, SCIENCE.md section 9); bfloat16 only where
the processor has the instructions, and a step whose gradient it cannot hold is taken in float32 (`training.loop`); a
choice must win by a tenth, since timings are noisy; nothing more is tried after two seconds; never more threads than
the process may use when it begins.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.models.plan import ModelPlan

__all__ = [
    "DEVICE_VARIABLE",
    "Numerics",
    "as_channels_last",
    "choose_device",
    "remembered_numerics",
    "set_memory_format",
]

DEVICE_VARIABLE = "DAFNE_DANTE_DEVICE"
_FILE = "hardware.json"
_MAX_BYTES = 1 << 20
_MUST_WIN_BY = 0.9
_TIMED_STEPS = 2
_PROBE_SECONDS = 2.0
_FIRST_WITH_BFLOAT16 = (8, 0)
"""Compute capability of NVIDIA's Ampere."""


@dataclass(frozen=True)
class Numerics:
    """bfloat16 autocast, channels-last memory, and threads on a CPU; 0 for as many as the process has."""

    bfloat16: bool = False
    channels_last: bool = False
    threads: int = 0

    @contextmanager
    def threads_in_use(self) -> Iterator[None]:
        """Compute with that many threads until the block ends; no more than there are now."""
        before = torch.get_num_threads()
        torch.set_num_threads(min(self.threads or before, before))
        try:
            yield
        finally:
            torch.set_num_threads(before)


def choose_device(number: int = 0, environment: Mapping[str, str] = os.environ) -> torch.device:
    """The CUDA device of this number, from 0, where there is any, else the CPU; `DAFNE_DANTE_DEVICE=cpu` wants that."""
    wanted = torch.cuda.is_available() and environment.get(DEVICE_VARIABLE) != "cpu"
    return torch.device("cuda", number) if wanted else torch.device("cpu")


def remembered_numerics(network: nn.Module, plan: ModelPlan, batch_size: int, folder: Path) -> Numerics:
    """The numerics for training this network here: from `hardware.json` in `folder`, else probed and remembered."""
    device = next(network.parameters()).device
    key = _key(plan, batch_size, device)
    known = _load(folder / _FILE)
    if key in known:
        return known[key]
    numerics = _probe(network, plan, batch_size, device)
    make_folder(folder)
    content = {name: asdict(value) for name, value in (known | {key: numerics}).items()}
    write_atomically(folder / _FILE, json.dumps(content, sort_keys=True, indent=1).encode())
    return numerics


def as_channels_last(tensor: Tensor) -> Tensor:
    """The tensor (B, C, *patch) with channels innermost in memory; others as they are."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.contiguous(memory_format=formats[tensor.dim()]) if tensor.dim() in formats else tensor


def set_memory_format(network: nn.Module, *, channels_last: bool) -> None:
    """Lay the weights of convolutions out channels-last, or plainly again; values and names stay."""
    for parameter in network.parameters():
        plain = parameter.data.contiguous()
        parameter.data = as_channels_last(plain) if channels_last else plain


def _probe(network: nn.Module, plan: ModelPlan, batch_size: int, device: torch.device) -> Numerics:
    if device.type == "cuda":
        return Numerics(bfloat16=_has_bfloat16(device), channels_last=True)
    begin, best = time.perf_counter(), Numerics()
    fastest = _time(network, plan, batch_size, best)
    for change in _changes(torch.get_num_threads()):
        if time.perf_counter() - begin > _PROBE_SECONDS:
            break
        candidate = replace(best, **change)
        seconds = _time(network, plan, batch_size, candidate)
        if seconds < _MUST_WIN_BY * fastest:
            best, fastest = candidate, seconds
    return best


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU computes in bfloat16 by itself.

    `torch.cuda.is_bf16_supported` says yes as well where it is emulated, which is slower than float32.
    """
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= _FIRST_WITH_BFLOAT16


def _changes(threads: int) -> Iterator[dict[str, Any]]:
    """What is tried one after the other."""
    if threads > 1:
        yield {"threads": threads // 2}
    yield {"channels_last": True}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        yield {"bfloat16": True}
        yield {"bfloat16": True, "channels_last": True}


def _time(network: nn.Module, plan: ModelPlan, batch_size: int, numerics: Numerics) -> float:
    """Seconds of the fastest of a few forward and backward passes, after one that warms up; gradients are dropped."""
    batch = torch.zeros(batch_size, plan.in_channels, *plan.patch)
    if numerics.channels_last:
        batch = as_channels_last(batch)
        set_memory_format(network, channels_last=True)
    times: list[float] = []
    with numerics.threads_in_use():
        for _ in range(1 + _TIMED_STEPS):
            begin = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=numerics.bfloat16):
                output = network(batch)
            if output.requires_grad:
                output.float().square().mean().backward()
            times.append(time.perf_counter() - begin)
    network.zero_grad(set_to_none=True)
    set_memory_format(network, channels_last=False)
    return min(times[1:])


def _key(plan: ModelPlan, batch_size: int, device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu-{torch.get_num_threads()}"
    shape = (plan.architecture, plan.in_channels, plan.levels, plan.first_channels, plan.patch, plan.strides)
    text = f"{torch.__version__}|{torch.backends.cpu.get_cpu_capability()}|{name}|{batch_size}|{shape}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _load(path: Path) -> dict[str, Numerics]:
    """What was remembered; a file that cannot be understood is only a cache and is made anew."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_bounded(path, max_bytes=_MAX_BYTES))
        return {
            str(key): Numerics(bool(value["bfloat16"]), bool(value["channels_last"]), max(0, int(value["threads"])))
            for key, value in content.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
