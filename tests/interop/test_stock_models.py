"""Our `.model` files in stock Dafne, and stock Dafne's and Dante's files in our reader."""

import io
import pathlib
import uuid

import numpy as np
import pytest
import torch

from dafne_dante.models.build import build_network
from dafne_dante.models.file import parse_model, serialise_model, write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.plan import ModelPlan, plan_to_net_metadata
from dafne_dante.models.predict import predict_segmentation
from dafne_dante.models.stock_functions import stock_metadata, stock_sources

dafne_dl = pytest.importorskip("dafne_dl")
pytest.importorskip("dafne_inference")

pytestmark = pytest.mark.filterwarnings("ignore")
LABELS = ("left", "right")
ARCHITECTURES = ("unet2d", "unet3d", "dynunet")


def make_plan(architecture, first_channels=32, patch=(16, 32, 32)):
    two = architecture == "unet2d"
    strides = ((1, 1, 1), (2, 2, 2), (1, 2, 2)) if architecture == "dynunet" else ()
    return ModelPlan(
        architecture=architecture,
        labels=LABELS,
        in_channels=1,
        patch=patch[1:] if two else patch,
        spacing_mm=(1.0, 1.0) if two else (2.0, 1.0, 1.0),
        median_shape=patch[1:] if two else patch,
        levels=2,
        first_channels=first_channels,
        kernels=tuple((3, 3, 3) for _ in strides),
        strides=strides,
    )


def stock_network(plan):
    """The network as dafne_inference builds it, so that names and shapes of the weights are the stock client's."""
    from dafne_inference.networks import DafneDynUnetModel, DafneUnetModel

    torch.manual_seed(5)
    if plan.architecture == "dynunet":
        kernels, strides = [list(k) for k in plan.kernels], [list(s) for s in plan.strides]
        return DafneDynUnetModel(3, 1, plan.out_channels, kernels=kernels, strides=strides)
    return DafneUnetModel(
        plan.dimensions, 1, plan.out_channels, start_channel=plan.first_channels, n_levels=plan.levels
    )


def make_model(architecture, **kind):
    plan = make_plan(architecture, **kind)
    weights = stock_network(plan).state_dict()
    return GlobalModel(uuid.uuid4(), 1_700_000_000, plan, weights, stock_metadata(plan), stock_sources(plan))


def load_in_stock(content):
    from dafne_dl.model_loaders import generic_load_model

    return generic_load_model(io.BytesIO(content), install_deps=False)


def head(shape, seed=1):
    """A smooth positive image without zeros, float32."""
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(0, 3, size) for size in shape], indexing="ij")
    image = sum(np.sin((1 + i) * axis) for i, axis in enumerate(axes)) + 5
    return (image * 50 + random.normal(0, 3, shape)).astype(np.float32)


def as_data(image, *, with_affine):
    resolution = np.array([1.0, 1.0, 2.0][: image.ndim])
    data = {"image": image, "resolution": resolution}
    return {**data, "affine": np.diag([1.0, 1.0, 2.0, 1.0])} if with_affine else data


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stock_loads_our_file(architecture, tmp_path):
    model = make_model(architecture)
    path = tmp_path / "our.model"
    write_model(model, path)
    stock = load_in_stock(path.read_bytes())
    assert type(stock).__name__ == "DynamicTorchModel"
    assert (stock.model_id, stock.timestamp_id) == (model.model_id, model.timestamp)
    assert stock.get_data_dimensionality() == model.plan.dimensions
    assert stock.can_incremental_learn()
    found = stock.get_weights()
    assert list(found) == list(model.weights)
    assert all(torch.equal(found[name].cpu(), tensor) for name, tensor in model.weights.items())


def test_stock_builds_narrow_networks_from_our_file():
    model = make_model("unet3d", first_channels=8)
    found = load_in_stock(serialise_model(model)).get_weights()
    assert found["unet_model.model.0.conv.unit0.conv.weight"].shape[0] == 8


@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("shape", [(32, 36, 16), (20, 36, 20), (16, 36, 24)])
@pytest.mark.parametrize("architecture", ["unet3d", "dynunet"])
def test_apply_gives_masks_on_the_image_grid(architecture, shape, with_affine):
    model = make_model(architecture)
    image = head(shape)
    masks = load_in_stock(serialise_model(model)).apply(as_data(image, with_affine=with_affine))
    assert list(masks) == list(LABELS)
    assert all(mask.shape == shape for mask in masks.values())
    ours = predict_segmentation(build_network(model.plan, model.weights), model.plan, image[None], (1.0, 1.0, 2.0))
    for value, label in enumerate(LABELS, start=1):
        agree = ((ours == value) == (masks[label] > 0)).mean()
        assert agree > 0.999, f"{label}: {agree}"
    assert any(0 < mask.mean() < 1 for mask in masks.values())


def test_apply_leaves_the_callers_data_as_it_was():
    data = as_data(head((16, 36, 24)), with_affine=True)
    image = data["image"]
    load_in_stock(serialise_model(make_model("unet3d"))).apply(data)
    assert data["image"] is image and image.shape == (16, 36, 24)


@pytest.mark.parametrize("shape", [(40, 44), (33, 64)])
def test_apply_of_a_slice(shape):
    masks = load_in_stock(serialise_model(make_model("unet2d"))).apply(as_data(head(shape), with_affine=False))
    assert list(masks) == list(LABELS)
    assert all(mask.shape == shape for mask in masks.values())


def training_set(plan):
    """One image of the size of the plan's patch: stock learns in float16, which is very slow on a CPU in 3D."""
    shape = plan.patch if plan.dimensions == 2 else (*plan.patch[1:], plan.patch[0])
    images = [head(shape)]
    first = np.arange(shape[0]).reshape(shape[0], *[1] * (len(shape) - 1)) < shape[0] // 2
    masks = [
        {
            "left": np.broadcast_to(first, shape).astype(np.uint8),
            "right": np.broadcast_to(~first, shape).astype(np.uint8),
        }
        for _ in images
    ]
    return {"image_list": images, "resolution": np.array([1.0, 1.0, 2.0][: len(shape)])}, masks


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_after_stock_incremental_learning_we_read_the_file(architecture):
    model = make_model(architecture, first_channels=8, patch=(4, 8, 8) if architecture == "dynunet" else (8, 16, 16))
    stock = load_in_stock(serialise_model(model))
    data, masks = training_set(model.plan)
    stock.incremental_learn(data, masks, bs=1, minTrainImages=1)
    stock.metadata.update({"latest_timestamp": "1700000001", "hashes": {"1": "a" * 64}, "info": {"en": "x"}})
    content = stock.dumps()
    assert b"_create_array" in content  # the form that needs dill's and numpy's names
    read = parse_model(content)
    assert (read.model_id, read.timestamp, read.plan.labels) == (model.model_id, stock.timestamp_id, LABELS)
    assert read.metadata["ewc_data"] is None
    assert read.metadata["latest_timestamp"] == "1700000001"
    expected = stock.get_weights()
    assert all(torch.equal(read.weights[name], expected[name].cpu()) for name in expected)
    moved = [name for name in expected if not torch.equal(read.weights[name], model.weights[name])]
    assert moved
    again = load_in_stock(serialise_model(read))
    assert all(torch.equal(again.get_weights()[name].cpu(), read.weights[name]) for name in expected)
    assert again.apply(as_data(data["image_list"][0], with_affine=False))["left"].shape == masks[0]["left"].shape


@pytest.mark.parametrize(
    "base", [pathlib.PurePosixPath("/home/somebody/base.model"), "C:\\Users\\somebody\\base.model"]
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_made_by_dante(architecture, base):
    create = pytest.importorskip("dante.bin.create_torch_model").create_dynamic_model
    plan = make_plan(architecture)
    net_metadata = {**plan_to_net_metadata(plan), "extra_params": {}, "lora_config": None, "fine_tuning": True}
    del net_metadata["start_channel"], net_metadata["num_res_units"]
    made = create(stock_network(plan).state_dict(), net_metadata, {"epochs": 2, "pretrained_model_path": base}, None)
    content = made.dumps()
    read = parse_model(content)
    assert (read.model_id, read.plan.architecture, read.plan.labels) == (made.model_id, architecture, LABELS)
    assert read.metadata["train_metadata"] == {"epochs": 2}
    assert "create_dynamic_model" not in read.sources["init_model_function"]
    ours = serialise_model(read)
    assert b"somebody" in content and b"somebody" not in ours
    again = load_in_stock(ours)
    assert again.model_id == made.model_id
    expected = made.get_weights()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.get_weights().items())
    assert again.init_model_function.source == made.init_model_function.source
    assert parse_model(again.dumps()).plan == read.plan


def test_other_types_of_stock_are_named():
    from dafne_dl import DynamicDLModel

    from dafne_dante.errors import UnsupportedModelError

    keras = DynamicDLModel(
        uuid.uuid4(), lambda: None, lambda model, data: data,
        weights_to_model_function=lambda model, weights: None,
        model_to_weights_function=lambda model: [np.zeros((2, 3), np.float32), np.ones(3)],
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="Keras"):
        parse_model(keras.dumps())
