"""Models that we configure and train, in the stock client: what its network sees, and what it answers."""

import time
import uuid
from dataclasses import replace

import numpy as np
import pytest
import torch
from comparison import load_in_stock, our_masks, smooth_image, stock_masks, worst_dice
from phantoms import make_case

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.models.build import build_network
from dafne_dante.models.configure import configure_cases
from dafne_dante.models.file import parse_model, serialise_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.planning.budget import give_budget
from dafne_dante.models.preprocess import pad_for_network, prepare_image
from dafne_dante.models.stock_functions import stock_metadata, stock_sources
from dafne_dante.training.loop import fit
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.recipe import Recipe

pytest.importorskip("dafne_dl")
pytest.importorskip("dafne_inference")

pytestmark = pytest.mark.filterwarnings("ignore")

ARCHITECTURES = ("unet2d", "unet3d", "dynunet")
GRIDS = {"isotropic": ((28, 30, 18), (2.0, 2.0, 2.0)), "anisotropic": ((36, 40, 13), (1.1, 1.2, 5.0))}
IMAGES = {
    "its own grid": ((28, 30, 18), (2.0, 2.0, 2.0), 0),
    "its own grid in air": ((32, 30, 18), (2.0, 2.0, 2.0), 3),
    "anisotropic": ((36, 40, 13), (1.1, 1.2, 5.0), 0),
    "anisotropic in air": ((40, 36, 9), (1.1, 1.2, 5.0), 2),
    "fine in air": ((40, 44, 24), (1.3, 1.2, 1.4), 4),
    "more slices than rows": ((20, 36, 24), (1.9, 1.9, 1.9), 0),
}


def cases_on(grid, margin=2):
    """Three cases with air around them, so that a crop is learnt from."""
    shape, spacing_mm = GRIDS[grid]
    air = smooth_image(shape, 0, margin) == 0
    for seed in (1, 2, 3):
        case = make_case(seed, shape=shape)
        image, segmentation = case.image.copy(), case.segmentation.copy()
        image[0][air], segmentation[air] = 0, 0
        yield replace(case, image=image, segmentation=segmentation, affine=np.diag([*spacing_mm, 1.0]))


def train(architecture, grid):
    """A model as `train` makes it: configured by its cases, a few steps, our metadata and sources."""
    cases = list(cases_on(grid))
    plan = configure_cases(cases, architecture, budget=give_budget(1.0, on_gpu=False)).plan
    torch.manual_seed(4)
    network = build_network(plan)
    prepared = prepare_cases(cases, plan)
    recipe = Recipe(epochs=1, steps_per_epoch=4, batch_size=1, learning_rate=2e-3)
    fit(network, plan, FullFineTuning(), prepared[:2], prepared[2:], recipe=recipe)
    weights = plain_weights(network)
    return GlobalModel(uuid.uuid4(), int(time.time()), plan, weights, stock_metadata(plan), stock_sources(plan))


@pytest.fixture(scope="module")
def trained():
    """A function from architecture and grid to the bytes of our file; each is trained once."""
    files = {}

    def make(architecture, grid):
        if (architecture, grid) not in files:
            files[architecture, grid] = serialise_model(train(architecture, grid))
        return files[architecture, grid]

    return make


def seen_by_stock(stock, image, spacing_mm, monkeypatch):
    """What the stock client gives its network for a volume, (C, Z, X, Y), or for one slice, (C, X, Y)."""
    from dafne_inference import inference

    seen, window = [], inference.sliding_window_inference

    def watch(inputs, **options):
        seen.append(inputs)
        return window(inputs=inputs, **options)

    monkeypatch.setattr(inference, "sliding_window_inference", watch)
    two = stock.get_data_dimensionality() == 2
    hook = stock.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) if two else None
    data = {"resolution": np.array(spacing_mm)[: image.ndim]}
    stock.apply({"image": image, **data})
    if hook:
        hook.remove()
    # The slice goes into the middle of 32, all others of air.
    return np.asarray(max(seen, key=lambda one: float(one.abs().sum()))[0])


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_network_sees_the_same_intensities(trained, monkeypatch, architecture, grid, kind):
    shape, spacing_mm, margin = IMAGES[kind]
    content = trained(architecture, grid)
    plan = parse_model(content).plan
    image = smooth_image(shape, 7, margin)
    image = image[..., shape[2] // 2] if plan.dimensions == 2 else image
    stock = seen_by_stock(load_in_stock(content), image, spacing_mm, monkeypatch)
    ours, _ = pad_for_network(prepare_image(image[None], spacing_mm, plan).image, plan)
    assert ours.shape == stock.shape
    assert np.abs(ours - stock).max() <= 1e-3


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_apply_gives_our_masks(trained, architecture, grid, kind):
    shape, spacing_mm, margin = IMAGES[kind]
    content = trained(architecture, grid)
    image = smooth_image(shape, 8, margin)
    if architecture == "unet2d":  # the stock client runs its network 32 times a slice
        image = np.ascontiguousarray(image[..., ::4])
    ours = our_masks(parse_model(content), image, spacing_mm)
    assert worst_dice(ours, stock_masks(load_in_stock(content), image, spacing_mm)) >= 0.999
