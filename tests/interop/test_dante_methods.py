"""The real `dante_train` as a method of the benchmark: whom it validates on, and what its checkpoints hold."""

import sysconfig
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import torch
from phantoms import make_case

from dafne_dante.benchmark import dante_methods
from dafne_dante.benchmark.dante_archives import validation_places
from dafne_dante.benchmark.dante_methods import DanteMethods, dante_plan
from dafne_dante.benchmark.dante_program import run_dante
from dafne_dante.benchmark.dante_weights import lora_numbers, read_checkpoint
from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.protocol import Cell, Effort
from dafne_dante.benchmark.splits import split_cases
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.stock_functions import stock_metadata, stock_sources

pytest.importorskip("dante")

PROGRAM = Path(sysconfig.get_path("scripts")) / "dante_train"


def domain(name, people):
    cases = [make_case(person, shape=(24, 24, 14)) for person in people]
    return Domain(name, cases[0].labels, cases, tuple(f"person {person}" for person in people))


def test_it_tunes_our_base_validates_on_the_selection_cases_and_keeps_what_it_says(tmp_path, monkeypatch):
    split = split_cases(domain("source", range(4)), domain("one", range(20, 26)), seed=0, shots=2, pretraining="rich")
    case = split.training[0]
    plan = dante_plan(ModelPlan("unet3d", case.labels, 1, (16,) * 3, case.spacing_mm, (24, 24, 14), levels=2))
    torch.manual_seed(0)
    weights = dict(build_network(plan).state_dict())
    base = GlobalModel(UUID(int=7), 1, plan, weights, stock_metadata(plan), stock_sources(plan))
    kept = {}

    def run(program, folder, options):
        kept["run"] = found = run_dante(program, folder, options)
        kept["model"] = read_model(found.model)
        kept["best"] = read_checkpoint(found.epochs[-1].checkpoint, kept["model"].weights)
        kept["lora"] = lora_numbers(found.epochs[-1].checkpoint)
        table = found.model.with_suffix(".csv").read_text()
        kept["validated"] = {line.partition(",")[0] for line in table.splitlines()[1:]}
        kept["archives"] = len(list((folder / "data").iterdir()))
        return found

    monkeypatch.setattr(dante_methods, "run_dante", run)
    outcome = DanteMethods(Effort(epochs=4), PROGRAM).run(
        Cell("one", 2, "rich", "dante-lora", 0), split, base, tmp_path
    )  # fmt: skip
    assert len(outcome.curve) == 2 and all(point.dice is not None for point in outcome.curve)
    assert kept["validated"] == {f"{place:04}.npz" for place in validation_places(kept["archives"])}
    assert kept["lora"] == outcome.trainable_parameters > 0
    for name, tensor in kept["model"].weights.items():
        np.testing.assert_allclose(kept["best"][name].numpy(), tensor.numpy(), atol=2e-5)
    assert outcome.sent_bytes > 4 * sum(tensor.numel() for tensor in weights.values())
    assert kept["model"].plan.first_channels == plan.first_channels
