"""What it costs to prepare cases for training: for the first time, and again in another run of the same site.

    python benchmarks/prepared_cache.py [--cases N] [--folder FOLDER]

Made-up studies of 256 x 256 x 60 voxels of 0.9 x 0.9 x 3 mm, smooth structures with noise, in a case store. `plain`
is `prepare_cases` without any cache; `cold` prepares and seals; `warm` is another cache of the same store, which finds
what the first left; `beyond_memory` is one more that may hold nothing in memory, and `draw_ms` what a patch then costs
against `draw_in_memory_ms`. Seconds include hashing the cases, which tells whether a file is theirs. `resampled` plans
have another spacing than the cases, the others the same, so that preparing is cropping and scaling alone. What comes
out is compared with what `prepare_cases` makes. One JSON object a line on stdout.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.store.key import StoreKey
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.prepared import PreparedCase, prepare_cases
from dafne_dante.training.prepared_cache import PreparedCache
from dafne_dante.training.sampling import PatchSampler

SHAPE = (256, 256, 60)  # X, Y, Z
SPACING = (3.0, 0.9, 0.9)  # Z, X, Y
LABELS = ("one", "two")
PLANS = {
    "3D, resampled": ModelPlan("unet3d", LABELS, 1, (32, 128, 128), (3.0, 1.0, 1.0), (60, 230, 230)),
    "3D, same spacing": ModelPlan("unet3d", LABELS, 1, (32, 128, 128), SPACING, (60, 256, 256)),
    "2D, resampled": ModelPlan("unet2d", LABELS, 1, (256, 256), (1.0, 1.0), (230, 230)),
}
DRAWS = 40


def make_case(seed: int) -> Case:
    """Labelled throughout."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(0, 1, SHAPE), 3)
    image = np.rint(np.clip(800 * (smooth - smooth.min()) / np.ptp(smooth) + random.normal(0, 8, SHAPE), 1, None))
    segmentation = (smooth > 0).astype(np.uint8) + (smooth > smooth.std())
    affine = np.diag([SPACING[1], SPACING[2], SPACING[0], 1.0])
    return Case(f"{seed:016x}", image.astype(np.float32)[None], segmentation, np.ones(SHAPE[2], bool), affine, LABELS)


def timed(prepare: Callable[[], Sequence[PreparedCase]]) -> tuple[float, Sequence[PreparedCase]]:
    """Seconds, and what came out."""
    begin = time.perf_counter()
    found = prepare()
    return time.perf_counter() - begin, found


def draw_ms(cases: Sequence[PreparedCase], plan: ModelPlan) -> float:
    """Milliseconds for one patch."""
    sampler = PatchSampler(cases, plan, seed=0)
    begin = time.perf_counter()
    for _ in range(DRAWS):
        sampler.draw(1)
    return 1000 * (time.perf_counter() - begin) / DRAWS


def is_same(one: Sequence[PreparedCase], other: Sequence[PreparedCase]) -> bool:
    """Whether images, targets and what is known agree bit for bit."""
    return len(one) == len(other) and all(
        a.prepared.record == b.prepared.record
        and a.prepared.image.tobytes() == b.prepared.image.tobytes()
        and a.target.tobytes() == b.target.tobytes()
        and a.known.tobytes() == b.known.tobytes()
        for a, b in zip(one, other, strict=True)
    )


def measure(name: str, cases: Sequence[Case], folder: Path) -> dict[str, object]:
    """Seconds of all cases together, and ratios."""
    plan = PLANS[name]

    def cache(max_memory_bytes: int | None = None) -> PreparedCache:
        return PreparedCache(CaseStore(folder, StoreKey(bytes(32))).prepared, max_memory_bytes=max_memory_bytes)

    plain_s, plain = timed(lambda: prepare_cases(cases, plan))
    cold_s, _ = timed(lambda: cache().prepare(cases, plan))
    warm_s, warm = timed(lambda: cache().prepare(cases, plan))
    beyond_s, beyond = timed(lambda: cache(0).prepare(cases, plan))
    return {
        "plan": name,
        "cases": len(cases),
        "plain_s": round(plain_s, 2),
        "cold_s": round(cold_s, 2),
        "warm_s": round(warm_s, 2),
        "warm_over_plain": round(warm_s / plain_s, 3),
        "beyond_memory_s": round(beyond_s, 2),
        "draw_in_memory_ms": round(draw_ms(plain, plan), 1),
        "draw_ms": round(draw_ms(beyond, plan), 1),
        "same": is_same(plain, warm) and is_same(plain, beyond),
    }


def main() -> None:
    """Print a line for each plan."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=None, help="where the store is made; a temporary folder")
    options = parser.parse_args()
    cases = [make_case(seed) for seed in range(options.cases)]
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary) / "cases"
        store = CaseStore(folder, StoreKey(bytes(32)))
        for case in cases:
            store.add(case)
        for name in PLANS:
            print(json.dumps(measure(name, cases, folder)), flush=True)


if __name__ == "__main__":
    main()
