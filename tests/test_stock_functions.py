"""The texts that stock clients execute, executed here as they do, with stand-ins for dafne_inference."""

import sys
import types

import numpy as np
import pytest
import torch
from pickled import PLANS

from dafne_dante.models.stock_functions import stock_metadata, stock_sources


def stock_loader(source):
    """What Dafne does with a source: execute it with nothing around, take the first function."""
    found = {}
    exec(source, {}, found)
    (function,) = found.values()
    return function


@pytest.fixture
def dafne_inference(monkeypatch):
    """Stand-ins for dafne_inference that note how they are called."""
    names = ("networks", "inference", "incremental")
    networks, inference, incremental = (types.ModuleType(f"dafne_inference.{name}") for name in names)
    networks.DafneUnetModel = lambda **arguments: ("unet", arguments)
    networks.DafneDynUnetModel = lambda **arguments: ("dynunet", arguments)

    def run_inference(model, data):
        """As the real one: the last axis holds the slices only when it is shorter than the first."""
        image = data["image"]
        inside = image > 0
        if image.ndim == 3 and not image.shape[2] < image.shape[0]:
            inside = np.moveaxis(inside, 0, -1)
        return {"left": inside.astype(np.int8), "right": (~inside).astype(np.int8)}

    inference.run_inference = run_inference
    incremental.run_incremental_learning = lambda *arguments: arguments
    monkeypatch.setitem(sys.modules, "dafne_inference", types.ModuleType("dafne_inference"))
    for module in (networks, inference, incremental):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return inference


@pytest.mark.parametrize("architecture", PLANS)
def test_init_source_builds_the_plans_network(architecture, dafne_inference):
    plan = PLANS[architecture]
    kind, arguments = stock_loader(stock_sources(plan)["init_model_function"])()
    shared = {"spatial_dims": plan.dimensions, "in_channels": plan.in_channels, "out_channels": plan.out_channels}
    if architecture == "dynunet":
        own = {"kernels": [list(k) for k in plan.kernels], "strides": [list(s) for s in plan.strides]}
    else:
        own = {"start_channel": plan.first_channels, "n_levels": plan.levels, "num_res_units": 2, "kernel_size": 3}
    assert (kind, arguments) == ("dynunet" if architecture == "dynunet" else "unet", {**shared, **own})


@pytest.mark.parametrize("shape", [(8, 6, 4), (4, 6, 4), (3, 6, 9), (1, 5, 5), (7, 9)])
def test_apply_source_keeps_the_images_axes(shape, dafne_inference):
    image = np.arange(np.prod(shape)).reshape(shape) % 3
    data = {"image": image, "resolution": np.ones(3)}
    found = stock_loader(stock_sources(PLANS["unet3d"])["apply_model_function"])(None, data)
    assert np.array_equal(found["left"], image > 0)
    assert np.array_equal(found["right"], image == 0)
    assert data["image"] is image


def learn_with(learner, architecture, network):
    """Run the source of incremental learning with `learner` in the place of the stock client's."""
    sys.modules["dafne_inference.incremental"].run_incremental_learning = learner
    learn = stock_loader(stock_sources(PLANS[architecture])["incremental_learn_function"])
    return learn(types.SimpleNamespace(model=network), "data", "outputs", 5, 3)


def test_incremental_learn_source(dafne_inference):
    network = torch.nn.Identity()
    found = learn_with(lambda *arguments: arguments, "unet3d", network)
    assert found[0].model is network
    assert found[1:] == ("data", "outputs", 5, 3)


class Seeing(torch.nn.Module):
    """A network that keeps what it saw last and gives it back."""

    def forward(self, image):
        self.seen = image
        return image


@pytest.mark.parametrize(
    ("architecture", "size", "filled"),
    [("unet3d", (5, 7, 9), (6, 8, 10)), ("unet2d", (5, 8), (8, 8)), ("dynunet", (5, 9, 4), (6, 12, 4))],
)
def test_the_network_learns_from_images_that_its_strides_do_not_divide(architecture, size, filled, dafne_inference):
    network, image = Seeing(), torch.randn(2, 1, *size)
    outputs = learn_with(lambda model, *_: model.model(image), architecture, network)
    assert torch.equal(outputs, image)
    assert network.seen.shape == (2, 1, *filled)
    assert network.seen.count_nonzero() == image.count_nonzero()
    assert network(image) is image  # nothing is left behind


def test_no_hook_is_left_where_learning_fails(dafne_inference):
    network = torch.nn.Identity()

    def learner(*_):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        learn_with(learner, "unet3d", network)
    assert not network._forward_pre_hooks
    assert not network._forward_hooks


def test_stock_metadata():
    metadata = stock_metadata(PLANS["unet2d"])
    assert metadata["dependencies"] == {"dafne_inference": "dafne-monai-inference>=1.0.2"}
    assert (metadata["model_name"], metadata["dimensionality"], metadata["categories"]) == ("unet", "2", ["one"])
    assert (metadata["model_type"], metadata["variants"]) == ("DynamicTorchModel", [""])
    assert stock_metadata(PLANS["dynunet"])["model_name"] == "dynunet"
