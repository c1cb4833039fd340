"""How fast the case store seals and opens cases, and how small it makes them.

    python benchmarks/case_store.py [--folder FOLDER]

Three made-up studies of 256 x 256 x 120 voxels, smooth structures with noise and a quarter of air: whole numbers as
scanners give them, the same scaled (no whole numbers any more), and noise alone. MB are those of the float32 image and
the uint8 segmentation; times include hashing, packing, sealing, the flush to the disk and the index.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.store.key import StoreKey
from dafne_dante.annotations.store.store import CaseStore

SHAPE = (256, 256, 120)


def studies() -> dict[str, Case]:
    """Name to case."""
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.normal(0, 1, SHAPE), 3)
    smooth = 800 * (smooth - smooth.min()) / np.ptp(smooth)
    volume = np.clip(smooth + random.normal(0, 8, SHAPE), 0, None)
    volume[: SHAPE[0] // 4] = 0
    images = {"whole numbers": np.rint(volume), "scaled": np.rint(volume) * 0.37, "noise": random.normal(0, 1, SHAPE)}
    masks = (smooth > 400).astype(np.uint8) + (smooth > 550)
    slices = np.ones(SHAPE[2], bool)
    return {
        name: Case(f"{number:016x}", image.astype(np.float32)[None], masks, slices, np.eye(4), ("a", "b"))
        for number, (name, image) in enumerate(images.items())
    }


def measure(folder: Path) -> None:
    """Print a line a study: MB/s of adding and of reading, and the share of its bytes that it takes."""
    store = CaseStore(folder, StoreKey(bytes(32)))
    print(f"{'study':15}{'seal MB/s':>12}{'open MB/s':>12}{'size':>8}")
    for name, case in studies().items():
        size = (case.image.nbytes + case.segmentation.nbytes) / 1e6
        begin = time.perf_counter()
        store.add(case)
        added = time.perf_counter()
        store.read(case.case_id)
        read = time.perf_counter()
        share = next(one.file_bytes for one in store.cases() if one.case_id == case.case_id) / 1e6 / size
        print(f"{name:15}{size / (added - begin):12.0f}{size / (read - added):12.0f}{share:8.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where the store is made; a temporary folder")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as temporary:
        measure(Path(temporary) / "cases")
