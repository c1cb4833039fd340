"""Small made-up heads with two structures, for tests that train."""

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.models.plan import ModelPlan

LABELS = ("ball", "box")


def tiny_plan(labels=LABELS, patch=(16, 16, 16), first_channels=4):
    """A 3D U-Net that trains in a second."""
    return ModelPlan(
        architecture="unet3d",
        labels=labels,
        in_channels=1,
        patch=patch,
        spacing_mm=(2.0, 2.0, 2.0),
        median_shape=(16, 24, 20),
        levels=3,
        first_channels=first_channels,
    )


def make_case(seed, *, bright=(300.0, 200.0), shape=(20, 24, 16), annotated=None, noise=8.0):
    """A bright ball (label 1) and a box (label 2) in a grey head; axes X, Y, Z, 2 mm."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.arange(size) for size in shape], indexing="ij")
    centre = [random.uniform(6, size - 6) for size in shape]
    segmentation = np.zeros(shape, np.uint8)
    low = [int(random.integers(2, size - 9)) for size in shape]
    segmentation[tuple(slice(start, start + 6) for start in low)] = 2
    segmentation[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < 16] = 1
    image = np.full(shape, 100.0)
    image[segmentation == 1], image[segmentation == 2] = bright
    image = np.clip(image + random.normal(0, noise, shape), 1, None).astype(np.float32)
    slices = np.ones(shape[2], bool) if annotated is None else np.asarray(annotated, bool)
    return Case(f"case{seed}", image[None], segmentation, slices, np.diag([2.0, 2.0, 2.0, 1.0]), LABELS)
