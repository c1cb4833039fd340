"""Dante's trainer as a method of the benchmark: who it learns from, what it says and writes, how that is measured."""

import sys
import textwrap
from dataclasses import replace
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pytest
import torch
from phantoms import make_case
from tiny_benchmark import request
from typer.testing import CliRunner

from dafne_dante.benchmark.dante_archives import copies, validation_places, write_archives
from dafne_dante.benchmark.dante_methods import DANTE_METHODS, DanteMethods, dante_plan
from dafne_dante.benchmark.dante_program import run_dante
from dafne_dante.benchmark.dante_weights import lora_numbers, read_checkpoint
from dafne_dante.benchmark.protocol import Cell, Effort
from dafne_dante.benchmark.runners import runner_for
from dafne_dante.benchmark.splits import split_cases
from dafne_dante.cli.main import application
from dafne_dante.errors import IncompatibleModelError, SettingsError, TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model, write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.stock_functions import stock_metadata, stock_sources

STAND_IN = """
    #!{python}
    # Says what dante_train says, and writes what it writes; the weights are those of the model that it is given.
    import os, sys, time, warnings
    import torch
    from pathlib import Path
    from dafne_dante.models.file import read_model
    options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    out = Path(options["--output"])
    folder = out.parent / out.stem
    folder.mkdir()
    model = read_model(Path(options.get("--pretrained", {given!r})))
    print("Dataset loading (2 files...)")
    print("/somewhere/monai/metrics.py:214: UserWarning: the ground truth of class 1 is all 0", file=sys.stderr)
    print("Engine Starting on device cpu. 3 epochs")
    best = folder / f"{{out.stem}}_best_model.pth"
    for epoch in (1, 2, 3):
        sum(range(300_000))
        if epoch != 2:
            torch.save({{"model." + name: w + (1 if epoch == 1 else 0) for name, w in model.weights.items()}}, best)
            print(f"New best avg_dice: 0.{{epoch}}. Model saved!")
        print("Progress: 33%")
        print(f"Epoch {{epoch}}/3 | Loss: 1.0")
        time.sleep(0.3)  # an epoch takes seconds, and is seen while it lasts
    print("Packaging the model into .model format...")
    {ending}
    best.unlink()
    print("Training completed")
"""
WRITES = "import shutil; shutil.copyfile(options.get('--pretrained', {given!r}), folder / out.name)"
FAILS = "print('Error: no such label in /secret/folder/case.npz'); sys.exit(0)"


def drawing(plan):
    weights = dict(build_network(plan).state_dict())
    return GlobalModel(UUID(int=7), 1, plan, weights, stock_metadata(plan), stock_sources(plan))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base that Dante could tune, as a file; smaller than Dante's."""
    torch.manual_seed(0)
    plan = replace(dante_plan(request("out").plan), first_channels=4, levels=3, residual_units=1)
    path = tmp_path_factory.mktemp("base") / "base.model"
    write_model(drawing(plan), path)
    return path


@pytest.fixture
def program(tmp_path, base):
    def make(ending=WRITES):
        path = tmp_path / "dante_train"
        ending = ending.format(given=str(base))
        path.write_text(textwrap.dedent(STAND_IN).strip().format(python=sys.executable, given=str(base), ending=ending))
        path.chmod(0o755)
        return path

    return make


@pytest.fixture(scope="module")
def split():
    wanted = request("out")
    return split_cases(wanted.source, wanted.targets["one"], seed=0, shots=1, pretraining="rich")


@pytest.mark.parametrize(("training", "selection"), [(t, s) for t in (1, 2, 4, 7, 20, 41) for s in (1, 2, 3, 9)])
def test_dante_validates_on_the_selection_cases_and_on_no_other(tmp_path, training, selection):
    """The fifth that it takes, rounded up, is a whole number of copies of the selection cases."""
    often, held_out = copies(training, selection)
    count = often * training + held_out * selection
    assert len(validation_places(count)) == held_out * selection
    assert often >= 1 and held_out >= 1


def test_archives_hold_every_case_in_its_place_with_masks_in_the_order_of_the_labels(tmp_path):
    cases = [make_case(seed, shape=(16, 15, 14)) for seed in range(3)]
    split = SimpleNamespace(training=tuple(cases[:1]), selection=tuple(cases[1:]))
    write_archives(tmp_path / "data", split)
    paths = sorted((tmp_path / "data").iterdir())
    validated = validation_places(len(paths))
    found = {}
    for place, path in enumerate(paths):
        with np.load(path) as archive:
            which = next(number for number, case in enumerate(cases) if np.array_equal(archive["data"], case.image[0]))
            assert (place in validated) == (which > 0)
            masks = sorted(name for name in archive if name.startswith("mask_"))
            for value, name in enumerate(masks, start=1):
                assert np.array_equal(archive[name], cases[which].segmentation == value)
            assert np.allclose(archive["resolution"], cases[which].spacing_mm)
            found[which] = found.get(which, 0) + 1
    assert found == {0: 4, 1: 1, 2: 1}


def test_lora_of_a_checkpoint_is_merged_also_where_a_convolution_is_transposed(tmp_path):
    torch.manual_seed(0)
    plain = {"unet_model.one.weight": torch.randn(4, 2, 3, 3), "unet_model.up.weight": torch.randn(6, 2, 3, 3)}
    a = {"one": torch.randn(3, 3, 4, 2), "up": torch.randn(3, 3, 2, 2)}
    b = {"one": torch.randn(3, 3, 2, 2), "up": torch.randn(3, 3, 2, 6)}
    found = {}
    for name in a:
        layer = f"model.base_model.unet_model.{name}"
        found |= {
            f"{layer}.base_module.weight": plain[f"unet_model.{name}.weight"],
            f"{layer}.alpha": torch.tensor(16.0),
        }
        found |= {
            f"{layer}.delta_weight_A": a[name],
            f"{layer}.delta_weight_B": b[name],
            f"{layer}.rank": torch.tensor(8),
        }
    torch.save(found, tmp_path / "x.pth")
    read = read_checkpoint(tmp_path / "x.pth", plain)
    expected = torch.einsum("hwor,hwri->oihw", a["one"], b["one"]) * 2 + plain["unet_model.one.weight"]
    assert torch.allclose(read["unet_model.one.weight"], expected, atol=1e-5)
    turned = torch.einsum("hwor,hwri->iohw", a["up"], b["up"]) * 2 + plain["unet_model.up.weight"]
    assert torch.allclose(read["unet_model.up.weight"], turned, atol=1e-5)
    assert lora_numbers(tmp_path / "x.pth") == sum(tensor.numel() for part in (a, b) for tensor in part.values())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x02cos\nsystem\nU\x04exit\x85R."])
def test_a_checkpoint_that_is_none_is_refused_and_nothing_of_it_runs(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(TrainingError, match="a checkpoint of Dante's"):
        read_checkpoint(tmp_path / "x.pth", {"a": torch.zeros(1)})


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    torch.save({"model.a": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(TrainingError, match="another one's"):
        read_checkpoint(tmp_path / "x.pth", {"a": torch.zeros(3)})


def test_epochs_are_timed_and_the_best_checkpoint_so_far_is_kept(tmp_path, program, base):
    run = run_dante(program(), tmp_path, ["--pretrained", str(base)])
    assert [one.epoch for one in run.epochs] == [1, 2, 3]
    first, second, third = run.epochs
    assert first.checkpoint == second.checkpoint != third.checkpoint
    assert 0 < first.seconds < second.seconds < third.seconds
    weights = read_model(base).weights
    name = next(iter(weights))
    assert torch.equal(read_checkpoint(first.checkpoint, weights)[name], weights[name] + 1)
    assert torch.equal(read_checkpoint(third.checkpoint, weights)[name], weights[name])


def test_a_program_that_makes_no_model_is_told_without_folders(tmp_path, program):
    with pytest.raises(TrainingError, match=r"its last words: Error: no such label in \.\.\.") as told:
        run_dante(program(FAILS), tmp_path, [])
    assert "secret" not in str(told.value)


def test_a_program_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(SettingsError, match="none in nothing; check --dante"):
        run_dante(tmp_path / "nothing", tmp_path, [])


def test_a_cell_is_measured_as_ours_is(tmp_path, program, base, split):
    model = read_model(base)
    cell = Cell("one", 1, "rich", "dante-gradual-unfreezing", 0)
    (tmp_path / "cell").mkdir()
    outcome = DanteMethods(Effort(epochs=3), program()).run(cell, split, model, tmp_path / "cell")
    assert outcome.dice["mean"] == outcome.zero_shot, "the stand-in's last weights are the base's"
    assert outcome.source_after == outcome.source_before is not None
    assert [point.epoch for point in outcome.curve] == [1, 2, 3]
    assert outcome.curve[0].dice == outcome.curve[1].dice
    assert outcome.sent_bytes == base.stat().st_size


def test_only_a_network_of_dante_s_kind_is_given_to_it(tmp_path, program, split):
    wanted = request(tmp_path / "out")
    with pytest.raises(IncompatibleModelError, match="start with --dante"):
        DanteMethods(Effort(), program()).run(
            Cell("one", 1, "rich", "dante-lora", 0), split, drawing(wanted.plan), tmp_path
        )  # fmt: skip


def test_its_methods_need_its_program(tmp_path):
    for method in DANTE_METHODS:
        with pytest.raises(SettingsError, match="--dante PROGRAM"):
            runner_for(method, Effort(), tmp_path)
        assert isinstance(runner_for(method, Effort(), tmp_path, tmp_path / "dante_train"), DanteMethods)
    told = CliRunner().invoke(
        application, ["benchmark", "--out", str(tmp_path / "out"), "--methods", "dante-lora", "--quick"]
    )
    assert "--dante PROGRAM" in str(told.exception)
