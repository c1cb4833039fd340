"""Merging many updates of one model: peak memory, and time over reading their bytes and adding them once.

    .venv/bin/python benchmarks/merge_cost.py [--updates 1 10 100] [--channels 16]

Each number of updates is merged in a process of its own, dense updates of every weight of a 3D U-Net, each of a site of
its own, so that from five on the trimmed mean is taken. What is timed is from the bytes of the delta files to the new
weights: admission (signature, digests, shapes, finiteness, length), clipping and averaging; trying the result on the
operator's cases is not part of it. Beside it, in the same process: reading each file's bytes and adding its dense
updates, each number of int8 times its row's scale, to a sum in float32. Times are those of the processor, so that what
else the machine does counts less, of one thread, for threads that wait for each other count as work; the best of three.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.torch import load

from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.delta.encode import DeltaFacts, encode_delta
from dafne_dante.delta.signing import public_key_text
from dafne_dante.durable import read_bounded
from dafne_dante.federation.admission import admit
from dafne_dante.federation.contribution import Contribution, contribution_from
from dafne_dante.federation.merge import merge_updates
from dafne_dante.federation.spilled import set_aside
from dafne_dante.models.build import build_network, canonical_weights
from dafne_dante.models.global_model import digest_weights
from dafne_dante.models.known_weights import KnownWeights
from dafne_dante.models.plan import ModelPlan
from dafne_dante.types import Weights

LABELS = ("grey matter", "white matter")
FAMILY = UUID(int=7)
MOST_BYTES = 2**31
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""For numpy's products, whose threads would spin while they wait; torch is told in the process itself."""


def base_weights(channels: int) -> Weights:
    """The weights of a U-Net with five levels, drawn."""
    torch.manual_seed(0)
    plan = ModelPlan("unet3d", LABELS, 1, (32,) * 3, (1.0,) * 3, (32,) * 3, levels=5, first_channels=channels)
    return canonical_weights(plan, dict(build_network(plan).state_dict()))


def write_deltas(folder: Path, base: Weights, count: int) -> None:
    """Deltas of as many sites, one file each, and the list of their keys."""
    keys, dice = [], dict.fromkeys(("mean", *LABELS), 0.5)
    facts = DeltaFacts("Brain", FAMILY, "1", digest_weights(base), "full", 4, LABELS, dice, dice)
    for number in range(count):
        key = Ed25519PrivateKey.generate()
        keys.append(public_key_text(key))
        moves = [
            WeightUpdate(name, 1e-3 * torch.randn_like(tensor))
            for name, tensor in base.items()
            if tensor.is_floating_point()
        ]
        (folder / f"{number}.delta").write_bytes(encode_delta(moves, facts, key))
    (folder / "keys.json").write_text(json.dumps(keys))


def read_and_add(paths: list[Path], base: Weights) -> float:
    """Seconds to read each file and add its dense updates to a sum, as it is there to be written simply."""
    total = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    begin = time.process_time()
    for path in paths:
        stored = load(path.read_bytes())
        for name in base:
            if (tensor := stored.get(f"{name}#d")) is None:
                continue
            dense = tensor.float()
            if (scales := stored.get(f"{name}#d#rows")) is not None:
                dense = dense.reshape(len(scales), -1).mul_(scales[:, None]).reshape(dense.shape)
            total[name].add_(dense)
    return time.process_time() - begin


def merge(folder: Path, base: Weights, keys: list[str], paths: list[Path]) -> float:
    """Seconds to admit and merge."""
    begin = time.process_time()
    seen: set[str] = set()
    known = KnownWeights(base)
    contributions: list[Contribution] = []
    for path in paths:
        delta = admit(
            read_bounded(path, max_bytes=MOST_BYTES), bases={known.digest: known}, trusted_keys=keys,
            seen_update_ids=seen, model_id=FAMILY, labels=LABELS, max_norm_ratio=10.0,
        )  # fmt: skip
        contributions.append(contribution_from(delta, updates=set_aside(delta, path)))
        seen.add(delta.manifest.update_id)
        del delta
    merge_updates(base, contributions)
    return time.process_time() - begin


def measure(folder: Path, channels: int) -> None:
    """Merge what lies in the folder, and print a row as JSON."""
    torch.set_num_threads(1)
    base = base_weights(channels)
    keys = json.loads((folder / "keys.json").read_text())
    paths = sorted(folder.glob("*.delta"))
    first = merge(folder, base, keys, paths)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = min(first, *(merge(folder, base, keys, paths) for _ in range(2)))
    added = min(read_and_add(paths, base) for _ in range(3))
    print(json.dumps({"updates": len(paths), "seconds": seconds, "mebibytes": peak, "added": added}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="(for the processes of this script)")
    wanted = parser.parse_args()
    if wanted.folder:
        measure(wanted.folder, wanted.channels)
        sys.exit()
    for count in wanted.updates:
        with tempfile.TemporaryDirectory() as temporary:
            write_deltas(Path(temporary), base_weights(wanted.channels), count)
            command = [sys.executable, __file__, "--folder", temporary, "--channels", str(wanted.channels)]
            environment = {**os.environ, **ONE_THREAD}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        row = json.loads(done.stdout)
        print(
            f"{count:4} updates: {row['mebibytes']:.0f} MiB, {row['seconds'] / count * 1e3:.0f} ms an update, "
            f"{row['seconds'] / row['added']:.1f} of reading and adding ({row['added'] / count * 1e3:.0f} ms)"
        )
