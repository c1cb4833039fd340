"""Predictions do not depend on what else goes through the network with them."""

import numpy as np
import torch

from dafne_dante.models.build import build_network
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.predict import predict_segmentation


def test_slices_go_through_a_2d_network_together_and_come_back_in_their_order():
    """Slices of several sizes, one without a voxel above zero: each as if it had been alone."""
    plan = ModelPlan("unet2d", ("a", "b"), 1, (32, 32), (1.0, 1.0), (30, 30), levels=3, first_channels=4)
    torch.manual_seed(0)
    network = build_network(plan)
    image = np.random.default_rng(0).normal(100, 30, (1, 40, 36, 9)).astype(np.float32)
    for index in range(9):
        image[:, : 4 * index, :, index] = 0
    image[..., 4] = 0
    together = predict_segmentation(network, plan, image, (1.2, 1.2, 3.0))
    assert len(np.unique(together)) > 1
    for index in range(9):
        alone = predict_segmentation(network, plan, image[..., index : index + 1], (1.2, 1.2, 3.0))
        assert np.array_equal(together[..., index], alone[..., 0])
