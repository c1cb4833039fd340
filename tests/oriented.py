"""A phantom that no flip or permutation maps onto itself, and NIfTI files of it with any order of voxel axes.

World of the phantom: millimetres in RAS+. Every voxel has a value of its own, growing to the right, the front and
the head. The label "left" is a box at the patient's left, "top" one at the head.
"""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

SHAPE = (7, 9, 11)
AFFINE = np.array([[2.0, 0, 0, -6], [0, 1.5, 0, -5], [0, 0, 1.2, -4], [0, 0, 0, 1]])
ALL_ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)), dtype=float)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def image_array(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """(X, Y, Z) float32; the value tells the index."""
    x, y, z = np.indices(shape)
    return (10_000 + 1000 * x + 30 * y + z).astype(np.float32)


def label_array(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """(X, Y, Z) uint8: 1 is "left", 2 is "top"."""
    labels = np.zeros(shape, np.uint8)
    labels[:2, 2:5, 1:4] = 1
    labels[3:6, 4:8, -2:] = 2
    return labels


def oblique(affine: np.ndarray, degrees: float = 20.0) -> np.ndarray:
    """The affine turned about an axis that is none of the world's."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.deg2rad(degrees)
    rotation = np.eye(4)
    rotation[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation @ affine


def turned(array: np.ndarray, affine: np.ndarray, orientation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine stored with other voxel axes: the same voxels at the same places in the world."""
    stored = orientations.apply_orientation(array, orientation)
    return stored, affine @ orientations.inv_ornt_aff(orientation, array.shape)


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write one NIfTI-1 file with nibabel, making its folder; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def world_values(array: np.ndarray, affine: np.ndarray) -> dict[tuple[float, ...], float]:
    """World coordinates in millimetres (rounded) to value: what a grid says, whatever the order of its axes."""
    indices = np.stack([*np.indices(array.shape)]).reshape(3, -1)
    places = (affine[:3, :3] @ indices + affine[:3, 3:]).T.round(3) + 0.0
    return dict(zip(map(tuple, places.tolist()), array.reshape(-1).tolist(), strict=True))
