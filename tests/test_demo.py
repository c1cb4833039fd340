"""The demonstration as a person runs it: a process of its own, and the figures that it must reach."""

import json
import os
import subprocess
import sys

import pytest
import torch

from dafne_dante.annotations.folders import read_cases
from dafne_dante.demo.federation import DemoOutcome, HospitalOutcome, run_demo
from dafne_dante.demo.table import demo_table
from dafne_dante.errors import SettingsError
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model
from dafne_dante.plugin.apply import apply_delta_file
from dafne_dante.training.evaluate import evaluate_cases


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Output folder, JSON answer and stderr of one real run."""
    out = tmp_path_factory.mktemp("demo") / "output"
    environment = {**os.environ, "DAFNE_DANTE_CONFIG": str(out.parent / "configuration")}
    run = subprocess.run(
        [sys.executable, "-m", "dafne_dante", "demo", "--out", str(out), "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return out, json.loads(run.stdout), run.stderr


@pytest.mark.timeout(900)
def test_the_promised_object_is_all_there_is_on_stdout(demo):
    _, answer, _ = demo
    assert answer.keys() == {"hospitals", "delta_bytes", "model_bytes", "seconds"}
    assert answer["hospitals"].keys() == {"A", "B", "C"}
    assert all(one.keys() == {"global_before", "improved", "global_after"} for one in answer["hospitals"].values())
    assert answer["hospitals"]["A"]["improved"] is None
    assert answer["delta_bytes"].keys() == {"B", "C"}


@pytest.mark.timeout(900)
def test_the_federation_brings_what_it_must(demo):
    _, answer, _ = demo
    hospitals = answer["hospitals"]
    for name in ("B", "C"):
        assert hospitals[name]["improved"] >= hospitals[name]["global_before"] + 0.05
        assert hospitals[name]["global_after"] > hospitals[name]["global_before"]
    assert hospitals["A"]["global_after"] >= hospitals["A"]["global_before"] - 0.02
    assert answer["delta_bytes"]["B"] <= 0.05 * answer["model_bytes"]
    assert answer["delta_bytes"]["C"] < 0.5 * answer["model_bytes"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["B", "C"])
def test_base_and_delta_give_the_improved_model_and_its_dice(demo, name):
    out, answer, _ = demo
    applied, manifest = apply_delta_file(out / name / "base.model", out / name / "update.delta")
    improved = read_model(out / name / "improved.model")
    assert manifest.method == {"B": "lora", "C": "gradual-unfreezing"}[name]
    for weight, value in improved.weights.items():
        assert torch.allclose(applied.weights[weight], value, atol=1e-3)
    cases = read_cases(out / "hospitals" / name / "test")
    dice = evaluate_cases(build_network(applied.plan, applied.weights), applied.plan, cases)["mean"]
    assert abs(dice - answer["hospitals"][name]["improved"]) <= 0.002


@pytest.mark.timeout(900)
def test_every_subject_is_in_one_role_only(demo):
    out, _, _ = demo
    subjects = {
        role: {path.name.split("_")[1][:3] for path in (out / "hospitals" / role / "labelsTr").iterdir()}
        for role in ("A/train", "A/test", "B/train", "B/test", "C/train", "C/test", "operator")
    }
    assert sum(len(found) for found in subjects.values()) == len(set().union(*subjects.values()))


@pytest.mark.timeout(900)
def test_the_picture_is_there_and_no_key_is_in_any_other_file(demo):
    out, _, told = demo
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    settings = list(out.glob("configuration/*/settings.toml"))
    keys = [line.split('"')[1] for path in settings for line in path.read_text().splitlines() if "api_key" in line]
    assert len(keys) == 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in settings)
    for path in out.rglob("*"):
        if path.is_file() and path not in settings:
            content = path.read_bytes()
            assert not any(key.encode() in content for key in keys), path.name
    assert not any(key in told for key in keys)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SettingsError, match=r"expected .* to be new, empty or an earlier demo's folder"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_table_says_what_was_measured():
    outcome = DemoOutcome(
        {
            "A": HospitalOutcome(0.9, None, 0.89),
            "B": HospitalOutcome(0.6, 0.8, 0.7),
            "C": HospitalOutcome(0.5, 0.7, 0.6),
        },
        {"B": 1000, "C": 20000},
        100_000,
        61.0,
    )
    lines = demo_table(outcome).splitlines()
    row = next(line for line in lines if line.startswith("B "))
    assert row.split()[-6:] == ["0.600", "0.800", "0.700", "1,000", "B", "(1.0%)"]
    assert lines[-1] == "A full model is 100,000 bytes. 61 seconds in all."
