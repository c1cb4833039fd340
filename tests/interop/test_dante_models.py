"""What `dante_train` writes: it loads in ours, gives stock masks, can be improved and stays in its family."""

import dill
import pytest
import torch
from comparison import load_in_stock, our_masks, smooth_image, stock_masks, worst_dice
from dante_training import train_with_dante, write_archives
from phantoms import LABELS, make_case
from sites import write_cases

from dafne_dante.config import Settings
from dafne_dante.models.file import read_model, serialise_model
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, improve

pytest.importorskip("dafne_dl")
pytest.importorskip("dafne_inference")
pytest.importorskip("dante")

pytestmark = pytest.mark.filterwarnings("ignore")

SCRATCH = {
    "unet2d": ("--levels", "3"),
    "unet3d": ("--3d", "--levels", "3"),
    "dynunet": ("--3d", "--dynunet"),
}
TUNED = {
    "lora": ("--mode", "lora", "--lora-rank", "4"),
    "fine-tuned": ("--mode", "finetune", "--freeze-degree", "0.5", "--gradual-unfreeze"),
}
KINDS = (*SCRATCH, *TUNED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dante")


@pytest.fixture(scope="module")
def written(folder):
    """A function from the kind to Dante's file; each is trained once."""
    data = write_archives(folder / "archives", [make_case(seed, shape=(36, 40, 12)) for seed in (1, 2)])
    files = {}

    def train(kind):
        if kind not in files:
            base = ("--3d", "--pretrained", str(train("unet3d"))) if kind in TUNED else ()
            files[kind] = train_with_dante(data, kind, *base, *SCRATCH.get(kind, TUNED.get(kind)))
            assert files[kind].is_file(), f"Dante wrote no {kind}"
        return files[kind]

    return train


@pytest.mark.parametrize("kind", KINDS)
def test_we_read_what_dante_wrote(written, kind):
    content = written(kind).read_bytes()
    stock, ours = dill.loads(content), read_model(written(kind))
    assert ours.model_id == stock["model_id"]
    assert ours.timestamp == stock["timestamp_id"]
    assert ours.plan.labels == LABELS
    assert ours.plan.architecture == (kind if kind in SCRATCH else "unet3d")
    assert list(ours.weights) == list(stock["weights"])
    assert all(torch.equal(tensor, stock["weights"][name]) for name, tensor in ours.weights.items())


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "margin"), [((36, 40, 12), (2.0, 2.0, 2.0), 0), ((44, 40, 7), (1.6, 1.7, 6.0), 2)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_masks_are_those_of_stock_inference(written, kind, shape, spacing_mm, margin):
    image = smooth_image(shape, 5, margin)
    ours = our_masks(read_model(written(kind)), image, spacing_mm)
    stock = stock_masks(load_in_stock(written(kind).read_bytes()), image, spacing_mm)
    assert worst_dice(ours, stock) >= 0.999


@pytest.mark.parametrize("kind", KINDS)
def test_we_improve_it_within_its_family_and_stock_runs_the_result(written, kind, folder, tmp_path):
    base = read_model(written(kind))
    cases = write_cases(tmp_path / "cases", (21, 22), bright=(150.0, 260.0))
    request = ImprovementRequest(CaseRequest((cases,)), tmp_path / "out", written(kind), epochs=1, steps=3)
    improve(request, Settings(folder=folder / "configuration"))
    improved = read_model(tmp_path / "out" / "improved.model")
    assert improved.model_id == base.model_id
    assert any(not torch.equal(tensor, base.weights[name]) for name, tensor in improved.weights.items())
    image = smooth_image((36, 40, 12), 6)
    stock = load_in_stock((tmp_path / "out" / "improved.model").read_bytes())
    assert stock.model_id == base.model_id
    spacing_mm = (2.0, 2.0, 2.0)
    assert worst_dice(our_masks(improved, image, spacing_mm), stock_masks(stock, image, spacing_mm)) >= 0.999


@pytest.mark.parametrize("kind", TUNED)
def test_the_makers_folders_stay_behind(written, kind, folder):
    content = written(kind).read_bytes()
    assert str(folder).encode() in content
    assert str(folder).encode() not in serialise_model(read_model(written(kind)))
