"""Our models after stock Dafne's own incremental learning: they load in ours, and are improved again.

Stock learning runs in float16, which is slow on a CPU, so networks and images are as small as they can be.
"""

import uuid

import numpy as np
import pytest
import torch
from comparison import load_in_stock, our_masks, stock_masks, worst_dice
from phantoms import LABELS, make_case
from sites import write_cases

from dafne_dante.config import Settings
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model, write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.stock_functions import stock_metadata, stock_sources
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, improve

pytest.importorskip("dafne_dl")
pytest.importorskip("dafne_inference")

pytestmark = pytest.mark.filterwarnings("ignore")

SPACING_MM = (2.0, 2.0, 2.0)
_ANISOTROPIC = {"kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)), "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2))}
PLANS = {
    "unet2d": ModelPlan("unet2d", LABELS, 1, (16, 16), (2.0, 2.0), (13, 15), levels=3, first_channels=4),
    "unet3d": ModelPlan("unet3d", LABELS, 1, (8, 16, 16), (2.0, 2.0, 2.0), (12, 13, 15), levels=4, first_channels=4),
    "unet3d anisotropic": ModelPlan(
        "unet3d", LABELS, 1, (8, 16, 16), (6.0, 1.9, 1.9), (4, 13, 15), levels=4, first_channels=4
    ),
    "dynunet": ModelPlan("dynunet", LABELS, 1, (4, 8, 8), (4.0, 2.0, 2.0), (6, 13, 15), **_ANISOTROPIC),
}


def write_ours(kind, path):
    torch.manual_seed(6)
    plan = PLANS[kind]
    weights = build_network(plan).state_dict()
    write_model(
        GlobalModel(uuid.uuid4(), 1_700_000_000, plan, weights, stock_metadata(plan), stock_sources(plan)), path
    )


def labelled_phantom():
    """A head in air (X, Y, Z) whose crop, (12, 13, 11), no stride divides, and its masks by label."""
    case = make_case(3, shape=(14, 15, 13))
    inner = np.zeros(case.segmentation.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    masks = {label: (case.segmentation == value) & inner for value, label in enumerate(case.labels, start=1)}
    return np.where(inner, case.image[0], 0), masks


def learn_in_stock(stock):
    image, masks = labelled_phantom()
    images, answers = [image], [masks]
    if stock.get_data_dimensionality() == 2:
        images = [image[..., index] for index in (5, 6)]
        answers = [{label: mask[..., index] for label, mask in masks.items()} for index in (5, 6)]
    resolution = np.array(SPACING_MM[: images[0].ndim])
    stock.incremental_learn({"image_list": images, "resolution": resolution}, answers, bs=1, minTrainImages=1)


@pytest.mark.parametrize("kind", PLANS)
def test_ours_then_stock_learning_then_ours_and_stock_again(kind, tmp_path):
    write_ours(kind, tmp_path / "ours.model")
    ours = read_model(tmp_path / "ours.model")
    stock = load_in_stock((tmp_path / "ours.model").read_bytes())
    learn_in_stock(stock)
    stock.metadata["train_metadata"]["pretrained_model_path"] = str(tmp_path / "ours.model")
    (tmp_path / "learnt.model").write_bytes(stock.dumps())
    learnt = read_model(tmp_path / "learnt.model")
    assert learnt.model_id == ours.model_id
    assert learnt.plan == ours.plan
    assert all(torch.equal(tensor, stock.get_weights()[name]) for name, tensor in learnt.weights.items())
    assert any(not torch.equal(tensor, ours.weights[name]) for name, tensor in learnt.weights.items())

    cases = write_cases(tmp_path / "cases", (21, 22), shape=(16, 18, 14))
    request = ImprovementRequest(CaseRequest((cases,)), tmp_path / "out", tmp_path / "learnt.model", epochs=1, steps=3)
    improve(request, Settings(folder=tmp_path / "configuration"))
    content = (tmp_path / "out" / "improved.model").read_bytes()
    improved = read_model(tmp_path / "out" / "improved.model")
    assert improved.model_id == ours.model_id
    image, _ = labelled_phantom()
    again = load_in_stock(content)
    assert worst_dice(our_masks(improved, image, SPACING_MM), stock_masks(again, image, SPACING_MM)) >= 0.999

    from_stock = (tmp_path / "learnt.model").read_bytes()
    for left_behind in (b"fisher", b"params_snapshot", str(tmp_path).encode()):
        assert left_behind in from_stock
        assert left_behind not in content
    assert len(content) < 1.2 * (tmp_path / "ours.model").stat().st_size < len(from_stock)


@pytest.mark.parametrize("kind", ["unet2d", "unet3d"])
def test_stock_learns_again_from_what_we_improved_after_it_learnt(kind, tmp_path):
    """The Fisher snapshot is gone, so its second round is one without a penalty."""
    write_ours(kind, tmp_path / "ours.model")
    stock = load_in_stock((tmp_path / "ours.model").read_bytes())
    learn_in_stock(stock)
    (tmp_path / "learnt.model").write_bytes(stock.dumps())
    write_model(read_model(tmp_path / "learnt.model"), tmp_path / "passed.model")
    again = load_in_stock((tmp_path / "passed.model").read_bytes())
    assert again.metadata["ewc_data"] is None
    before = {name: tensor.clone() for name, tensor in again.get_weights().items()}
    learn_in_stock(again)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in again.get_weights().items())
