"""Our preprocessing and predictions against `dafne_inference.run_inference`, the code of every stock client."""

import itertools

import numpy as np
import pytest
import torch

from dafne_dante.models.build import build_network
from dafne_dante.models.plan import ModelPlan, plan_to_net_metadata
from dafne_dante.models.predict import predict_segmentation
from dafne_dante.models.preprocess import prepare_image

pytest.importorskip("dafne_inference")

LABELS = ("left", "right")


def make_plan(architecture, spacing):
    two = architecture == "unet2d"
    strides = ((1, 1, 1), (2, 2, 2), (1, 2, 2)) if architecture == "dynunet" else ()
    return ModelPlan(
        architecture=architecture,
        labels=LABELS,
        in_channels=1,
        patch=(32, 32) if two else (16, 32, 32),
        spacing_mm=spacing[1:] if two else spacing,
        median_shape=(40, 40) if two else (20, 40, 40),
        levels=3,
        first_channels=32,
        kernels=tuple((3, 3, 3) for _ in strides),
        strides=strides,
    )


def head(shape, seed, margin):
    """A smooth positive image with a dark margin, (X, Y, Z) float32."""
    random = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.linspace(0, 3, size) for size in shape], indexing="ij")
    image = sum(np.sin((1 + i) * axis + random.uniform(0, 3)) for i, axis in enumerate(grid)) + 4
    image = image * 50 + random.normal(0, 3, shape)
    if margin:
        inner = np.zeros(shape, bool)
        inner[margin:-margin, margin + 1 : -margin, 1:-1] = True
        image[~inner] = 0
    return image.astype(np.float32)


class StockModel:
    """What run_inference asks of a model object."""

    def __init__(self, plan, network):
        self.metadata = {"net_metadata": plan_to_net_metadata(plan)}
        self.model, self.device = network, torch.device("cpu")


def stock_prepared(image, spacing, plan):
    from dafne_inference.transforms import PreprocessAnisotropy
    from monai.transforms import Compose, EnsureChannelFirstd

    data = {
        "image": np.ascontiguousarray(np.moveaxis(image, -1, 0)) if image.ndim == 3 else image[None],
        "image_meta_dict": {"pixdim": np.array([1.0, *spacing], dtype=np.float32)},
    }
    transform = PreprocessAnisotropy(
        keys=["image"], target_spacing=list(plan.spacing_mm), model_mode=None, spatial_dims=plan.dimensions
    )
    first = EnsureChannelFirstd(keys=["image"], channel_dim="no_channel")
    return np.asarray(Compose([first, transform])(data)["image"])


SPACINGS = [(2.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.2, 0.8, 0.9)]


@pytest.mark.parametrize(("own", "target", "margin"), [
    (own, target, margin) for own, target, margin in itertools.product(SPACINGS, SPACINGS, (0, 3))
])  # fmt: skip
def test_intensities_of_volumes(own, target, margin):
    plan = make_plan("unet3d", target)
    image = head((40, 44, 18), 1, margin)
    z, x, y = own
    ours = prepare_image(image[None], (x, y, z), plan).image
    stock = stock_prepared(image, own, plan)
    assert ours.shape == stock.shape
    assert np.abs(ours - stock).max() <= 1e-3


@pytest.mark.parametrize("architecture", ["unet3d", "dynunet"])
@pytest.mark.parametrize(("own", "margin"), [((2.0, 1.0, 1.0), 3), ((4.0, 1.1, 1.2), 0), ((1.0, 0.9, 0.9), 2)])
def test_masks_of_volumes(architecture, own, margin):
    from dafne_inference.inference import run_inference

    torch.manual_seed(3)
    plan = make_plan(architecture, (2.0, 1.0, 1.0))
    network = build_network(plan)
    image = head((40, 44, 18), 2, margin)
    z, x, y = own
    ours = predict_segmentation(network, plan, image[None], (x, y, z))
    stock = run_inference(StockModel(plan, network), {"image": image, "affine": np.diag([x, y, z, 1.0])})
    assert 0 < (ours > 0).mean() < 1
    for value, name in enumerate(LABELS, start=1):
        both = int(((ours == value) & (stock[name] > 0)).sum())
        total = int((ours == value).sum()) + int((stock[name] > 0).sum())
        assert total == 0 or 2 * both / total >= 0.999


@pytest.mark.parametrize("own", [(1.0, 1.0), (0.7, 0.9)])
def test_masks_of_a_slice(own):
    from dafne_inference.inference import run_inference

    torch.manual_seed(3)
    plan = make_plan("unet2d", (2.0, 1.0, 1.0))
    network = build_network(plan)
    image = head((60, 70, 3), 4, 3 if own[0] == 1.0 else 0)[..., 1]
    ours = predict_segmentation(network, plan, image[None, :, :, None], (*own, 1.0))[..., 0]
    stock = run_inference(StockModel(plan, network), {"image": image, "resolution": np.array(own)})
    assert 0 < (ours > 0).mean() < 1
    for value, name in enumerate(LABELS, start=1):
        both = int(((ours == value) & (stock[name] > 0)).sum())
        total = int((ours == value).sum()) + int((stock[name] > 0).sum())
        assert total == 0 or 2 * both / total >= 0.999
