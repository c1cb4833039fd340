"""Made-up limbs with two muscles that run through all slices, and how a person labels some slices of them."""

import dataclasses

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.models.plan import ModelPlan

LABELS = ("extensor", "flexor")
SLICES, SIZE = 60, 24
SPACING_MM = (2.0, 2.0, 2.0)
EVERY_FIFTH = np.arange(SLICES) % 5 == 2
"""12 of 60 slices."""


def make_limb(seed, *, tissue=(100.0, 180.0, 260.0), noise=20.0):
    """A round limb with muscles that wander and change their thickness; axes X, Y, Z, 2 mm, labelled throughout."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(np.arange(SIZE), np.arange(SIZE), np.arange(SLICES), indexing="ij")
    middle = (SIZE - 1) / 2

    def wave(amplitude):
        return amplitude * np.sin(2 * np.pi * (z / SLICES * random.uniform(0.5, 1.5) + random.uniform()))

    segmentation = np.zeros(x.shape, np.uint8)
    for value, side in ((1, -4.5), (2, 4.5)):
        across, along = middle + wave(1.5) + random.uniform(-1, 1), middle + side + wave(1.0)
        segmentation[np.hypot(x - across, y - along) < 3.5 + wave(1.0)] = value
    image = np.clip(np.asarray(tissue)[segmentation] + random.normal(0, noise, x.shape), 1, None)
    outside = np.hypot(x - middle, y - middle) >= middle - 0.5
    image[outside], segmentation[outside] = 0, 0
    affine = np.diag([*SPACING_MM, 1.0])
    return Case(f"limb{seed}", image.astype(np.float32)[None], segmentation, np.ones(SLICES, bool), affine, LABELS)


def partly(case, annotated):
    """The case as it is when somebody has labelled some slices only."""
    segmentation = np.where(annotated, case.segmentation, 0).astype(np.uint8)
    return dataclasses.replace(case, segmentation=segmentation, annotated=np.asarray(annotated, bool))


def taken_as_background(case):
    """The same case as a program sees it that takes every slice without a mask for an empty one."""
    return dataclasses.replace(case, annotated=np.ones_like(case.annotated))


def limb_plan(dimensions, *, spacing_mm=2.0):
    """A U-Net that learns limbs in seconds."""
    sizes = {"patch": (16, 24, 24), "spacing_mm": (spacing_mm, 2.0, 2.0), "median_shape": (SLICES, SIZE, SIZE)}
    if dimensions == 2:
        sizes = {"patch": (32, 32), "spacing_mm": (2.0, 2.0), "median_shape": (SIZE, SIZE)}
    return ModelPlan("unet3d" if dimensions == 3 else "unet2d", LABELS, 1, **sizes, levels=3, first_channels=8)
