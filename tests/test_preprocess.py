"""Preprocessing against what stock clients do (the real ones are compared in tests/interop)."""

import numpy as np
import pytest

from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.preprocess import (
    pad_for_network,
    prepare_image,
    prepare_known,
    prepare_segmentation,
    restore_segmentation,
)


def plan(spacing=(2.0, 1.0, 1.0), architecture="unet3d", patch=(16, 32, 32)):
    return ModelPlan(
        architecture=architecture, labels=("a",), in_channels=1, patch=patch, spacing_mm=spacing, median_shape=patch
    )


def head(shape=(20, 24, 12), seed=0):
    """Positive intensities inside a box, zero outside, axes X, Y, Z."""
    image = np.zeros((1, *shape), np.float32)
    inside = tuple(slice(2, size - 3) for size in shape)
    image[(0, *inside)] = np.random.default_rng(seed).uniform(50, 200, [s.stop - s.start for s in inside])
    return image


def test_slices_come_first_and_the_crop_box_is_positive_voxels():
    prepared = prepare_image(head(), (1.0, 1.0, 2.0), plan())
    assert prepared.image.shape == (1, 12 - 5, 20 - 5, 24 - 5)
    assert prepared.record.start == (2, 2, 2)
    assert not prepared.record.resampled


def test_z_score_covers_nonzero_voxels_only():
    image = head()
    image[0, 5, 5, 5] = 0
    prepared = prepare_image(image, (1.0, 1.0, 2.0), plan()).image
    tissue = prepared[prepared != 0]
    assert abs(float(tissue.mean())) < 1e-4
    assert abs(float(tissue.std()) - 1) < 1e-4
    assert prepared[0, 3, 3, 3] == 0


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 2.0), (1.0, 1.0, 4.0), (1.3, 0.9, 1.1)])
def test_labels_follow_the_image_and_return_to_the_grid(spacing):
    image = head((30, 34, 16))
    labels = np.zeros(image.shape[1:], np.uint8)
    labels[8:20, 10:24, 4:11] = 1
    image[0][labels == 1] = 1000
    prepared = prepare_image(image, spacing, plan((1.5, 1.0, 1.2)))
    target = prepare_segmentation(labels, prepared.record)
    assert target.shape == prepared.image.shape[1:]
    bright = prepared.image[0] > prepared.image[0].mean() + prepared.image[0].std()
    overlap = 2 * (bright & (target == 1)).sum() / (bright.sum() + (target == 1).sum())
    assert overlap > 0.9
    back = restore_segmentation(target, prepared.record)
    assert back.shape == labels.shape
    assert 2 * ((back == 1) & (labels == 1)).sum() / ((back == 1).sum() + (labels == 1).sum()) > 0.85


def test_without_resampling_the_way_back_is_exact():
    image = head()
    labels = np.zeros(image.shape[1:], np.uint8)
    labels[5:9, 6:15, 3:8] = 1
    record = prepare_image(image, (1.0, 1.0, 2.0), plan()).record
    assert np.array_equal(restore_segmentation(prepare_segmentation(labels, record), record), labels)


def test_anisotropic_volumes_are_resampled_slice_by_slice():
    image = head((24, 24, 10))
    record = prepare_image(image, (0.5, 0.5, 2.0), plan((2.0, 1.0, 1.0))).record
    assert record.anisotropic
    assert record.shape[0] == record.stop[0] - record.start[0]


def test_known_slices_follow_the_crop_and_the_spacing():
    annotated = np.zeros(12, bool)
    annotated[4:7] = True
    record = prepare_image(head(), (1.0, 1.0, 2.0), plan((1.0, 1.0, 1.0))).record
    known = prepare_known(annotated, record)
    assert known.shape == (record.shape[0],)
    assert known.sum() == 6


def test_an_image_without_tissue_is_left_whole():
    prepared = prepare_image(np.zeros((1, 8, 9, 10), np.float32), (1.0, 1.0, 2.0), plan())
    assert prepared.image.shape == (1, 10, 8, 9)
    assert not prepared.image.any()


def test_a_slice_is_prepared_alone():
    two = plan((1.0, 1.0), "unet2d", (32, 32))
    prepared = prepare_image(head()[..., 5], (1.0, 1.0, 2.0), two)
    assert prepared.image.shape == (1, 15, 19)
    assert restore_segmentation(np.ones((15, 19), np.uint8), prepared.record).shape == (20, 24)


@pytest.mark.parametrize("architecture", ["unet3d", "dynunet"])
def test_padding_is_symmetric_and_cut_off_again(architecture):
    image = np.ones((1, 7, 33, 40), np.float32)
    padded, inner = pad_for_network(image, plan(architecture=architecture))
    assert padded.shape == ((1, 32, 64, 64) if architecture == "unet3d" else (1, 16, 33, 40))
    assert padded.sum() == image.sum()
    assert padded[(slice(None), *inner)].shape == image.shape
