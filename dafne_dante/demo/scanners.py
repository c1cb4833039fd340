"""Simulated scanners: one individual, seen with another contrast, coil, noise and slice thickness; hospitals of them.

Everything in this module is simulated; what it looks at is real (see `anatomy`).

Terms
- contrast: a curve of (T1 intensity, intensity seen), both 0 to 1, piecewise linear; real texture goes through it.
- bias: largest logarithm, in the brain, of the receive coil's smooth, multiplicative field of mean logarithm 0.
- noise: standard deviation of the Gaussian noise in both channels of the coil, in units of the brightest tissue. The
  magnitude of the sum is Rician (Gudbjartsson and Patz, Magn Reson Med 1995).
- field of view: fitted to each head, so that voxels are 3 to 6 % larger than asked for (odd subjects) or smaller (even
  ones). So every image of every hospital is resampled by stock preprocessing: one that already had the model's spacing
  would not be, and would be z-scored over other voxels than all others (spline traces around the brain count there).

- marking: what is labelled in an individual, and what it does to the body, such as a lesion.

Invariants: intensities are positive in the brain and 0 outside (stock clients crop to what is positive); one seed, one
image, bit for bit; a voxel's centre, by the affine, is the centre of what was averaged into it.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import numpy.typing as npt

from dafne_dante.demo.anatomy import ALIKE, LABELS, Anatomy, Field, Variety, individual, smooth_field
from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.types import Affine, Segmentation, Volume

__all__ = [
    "SCANNER_A",
    "SCANNER_B",
    "SCANNER_C",
    "Marked",
    "Marking",
    "Scanner",
    "SimulatedCase",
    "make_case",
    "mark_tissues",
    "write_hospital",
]

_FINE_VOXELS = 2
"""Fine voxels along an in-plane voxel."""
_BRIGHTEST = 1000.0
_BIAS_SMOOTHING_MM = 56.0
_VIEW_SPREAD = (0.03, 0.06)


@dataclass(frozen=True)
class Scanner:
    """How a hospital sees a brain; terms in the module docstring."""

    name: str
    contrast: tuple[tuple[float, float], ...]
    bias: float = 0.0
    noise: float = 0.0
    slice_factor: int = 1


class SimulatedCase(NamedTuple):
    """An image (X, Y, Z) float32, its labels (X, Y, Z) uint8 and their affine (4, 4)."""

    image: Volume
    segmentation: Segmentation
    affine: Affine


class Marked(NamedTuple):
    """The body that is seen, and for each label the share (X, Y, Z) of the fine voxel that it fills."""

    anatomy: Anatomy
    shares: tuple[Field, ...]


Marking = Callable[[Anatomy, int], Marked]
"""From an individual and its seed to what is labelled in it."""


SCANNER_A = Scanner("A", contrast=((0.0, 0.0), (1.0, 1.0)), noise=0.02)
"""Plain T1 with a little noise."""
SCANNER_B = Scanner(
    "B", contrast=((0.0, 0.0), (0.3, 0.9), (0.62, 0.6), (0.74, 0.66), (0.88, 0.8), (1.0, 0.86)), bias=0.6, noise=0.02
)
"""Bright fluid instead of dark, and a coil with a strong bias; white matter stays brighter than grey.

A contrast that is turned round altogether would be learned as well, but what is learned then is the opposite of what
hospital A needs, so that no average of the two serves both.
"""
SCANNER_C = Scanner("C", contrast=((0.0, 0.0), (1.0, 1.0)), bias=0.6, noise=0.08, slice_factor=2)
"""T1 from a weak coil: bias, strong noise, slices twice as thick."""


def mark_tissues(anatomy: Anatomy, subject_seed: int) -> Marked:
    """Grey and white matter (LABELS) of the body as it is."""
    return Marked(anatomy, (anatomy.grey, anatomy.white))


def make_case(
    scanner: Scanner,
    subject_seed: int,
    voxel_mm: float = 4.0,
    *,
    mark: Marking = mark_tissues,
    variety: Variety = ALIKE,
) -> SimulatedCase:
    """See the subject through the scanner, with voxels of about `voxel_mm` in-plane (see: field of view).

    Raises:
        SettingsError: the template is not installed.
    """
    random = np.random.default_rng([subject_seed, zlib.crc32(scanner.name.encode())])
    view = 1 + (1 if subject_seed % 2 else -1) * random.uniform(*_VIEW_SPREAD)
    anatomy, shares = mark(individual(subject_seed, voxel_mm * view / _FINE_VOXELS, variety), subject_seed)
    block = (_FINE_VOXELS, _FINE_VOXELS, _FINE_VOXELS * scanner.slice_factor)
    signal = _block_mean(_signal(scanner, anatomy, random), block)
    inside = _block_mean(anatomy.brain, block) > 0.5
    image = np.where(inside, np.maximum(_rician(signal, scanner.noise, random) * _BRIGHTEST, 1.0), 0.0)
    labels = _label(np.stack([_block_mean(share, block) for share in shares]), inside)
    return SimulatedCase(image.astype(np.float32), labels, _blocked_affine(anatomy.affine, block))


def write_hospital(folder: Path, scanner: Scanner, subjects: Sequence[int], *, voxel_mm: float = 4.0) -> Path:
    """Write one case a subject in nnU-Net's layout (imagesTr, labelsTr, dataset.json) and return the folder.

    Raises:
        SettingsError: the template is not installed.
        StorageError: the disk refuses.
    """
    images, labels = make_folder(folder / "imagesTr"), make_folder(folder / "labelsTr")
    for subject in subjects:
        case = make_case(scanner, subject, voxel_mm)
        name = f"{scanner.name}_{subject:03d}"
        _write_nifti(images / f"{name}_0000.nii.gz", case.image, case.affine)
        _write_nifti(labels / f"{name}.nii.gz", case.segmentation, case.affine)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **{label: 1 + index for index, label in enumerate(LABELS)}},
        "numTraining": len(subjects),
        "file_ending": ".nii.gz",
    }
    write_atomically(folder / "dataset.json", (json.dumps(description, indent=1) + "\n").encode())
    return folder


def _signal(scanner: Scanner, anatomy: Anatomy, random: np.random.Generator) -> Volume:
    """Contrast and coil on the fine grid, before the voxel averages."""
    seen, shown = zip(*scanner.contrast, strict=True)
    signal = np.interp(anatomy.t1, seen, shown)
    if scanner.bias:
        signal = signal * np.exp(scanner.bias * _coil(anatomy, random))
    return np.asarray(signal, dtype=np.float32)


def _coil(anatomy: Anatomy, random: np.random.Generator) -> Volume:
    """Smooth, of mean 0 and largest magnitude 1 in the brain; the lattice's own corners say nothing about it."""
    field = smooth_field(random, anatomy.t1.shape, _BIAS_SMOOTHING_MM)
    brain = anatomy.brain > 0
    field = field - field[brain].mean()
    return np.asarray(field / np.abs(field[brain]).max(), dtype=np.float32)


def _rician(signal: Volume, sigma: float, random: np.random.Generator) -> Volume:
    real = signal + sigma * random.standard_normal(signal.shape)
    imaginary = sigma * random.standard_normal(signal.shape)
    return np.hypot(real, imaginary)


def _label(shares: npt.NDArray[Any], inside: npt.NDArray[np.bool_]) -> Segmentation:
    """Where a label fills more than half of the voxel, and more of it than the others; of equals the last one."""
    last = len(shares) - shares[::-1].argmax(axis=0)
    return np.where(inside & (shares.max(axis=0) > 0.5), last, 0).astype(np.uint8)


def _block_mean(volume: Volume, block: tuple[int, int, int]) -> Volume:
    """Average over blocks of voxels; zeros fill the last block."""
    padding = [(0, -size % step) for size, step in zip(volume.shape, block, strict=True)]
    padded = np.pad(volume, padding)
    shape = [part for size, step in zip(padded.shape, block, strict=True) for part in (size // step, step)]
    return np.asarray(padded.reshape(shape).mean(axis=(1, 3, 5)))


def _blocked_affine(affine: Affine, block: tuple[int, int, int]) -> Affine:
    """The affine of the averaged grid: centre 0 moves to the middle of the first block."""
    step = np.diag([*block, 1.0])
    step[:3, 3] = (np.array(block) - 1) / 2
    return np.asarray(affine @ step, dtype=np.float64)


def _write_nifti(path: Path, volume: Volume, affine: Affine) -> None:
    image = nibabel.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    write_atomically(path, gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))
