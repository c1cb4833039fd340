"""What a base can do before it learns is measured once, and a cell comes to the same with it and without."""

import json

import pytest
from merging import untrained_model
from tiny_benchmark import domain

from dafne_dante.benchmark import beginning
from dafne_dante.benchmark.beginning import as_begun, beginning_of, note_beginning
from dafne_dante.benchmark.splits import split_cases
from dafne_dante.models.build import build_network
from dafne_dante.models.file import write_model
from dafne_dante.training.evaluate import evaluate_cases


@pytest.fixture
def split():
    return split_cases(domain("source", range(4)), domain("one", range(20, 24)), seed=0, shots=1, pretraining="rich")


@pytest.fixture
def base(tmp_path):
    model = untrained_model()
    write_model(model, tmp_path / "base.model")
    return model


def noted(tmp_path, split):
    note_beginning(tmp_path / "cache", "one", tmp_path / "base.model", split, 0)
    (file,) = (tmp_path / "cache").iterdir()
    return file


def test_it_is_what_evaluation_says(tmp_path, base, split):
    noted(tmp_path, split)
    found = beginning_of(tmp_path / "cache", "one", base, split, source_labels=True)
    network = build_network(base.plan, base.weights)
    assert found.test == evaluate_cases(network, base.plan, split.test)
    assert found.selection == (evaluate_cases(network, base.plan, split.selection)["mean"] or 0.0)
    assert found.source == evaluate_cases(network, base.plan, split.source_test)["mean"]
    assert found == beginning_of(tmp_path / "nowhere", "one", base, split, source_labels=True)


def test_what_was_noted_is_not_measured_again(tmp_path, base, split, monkeypatch):
    file = noted(tmp_path, split)
    before = file.read_bytes()
    monkeypatch.setattr(beginning, "evaluate_cases", lambda *_: pytest.fail("measured again"))
    beginning_of(tmp_path / "cache", "one", base, split, source_labels=True)
    assert noted(tmp_path, split).read_bytes() == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"{",
        lambda content: b"[]",
        lambda content: json.dumps({**json.loads(content), "base": "0" * 64}).encode(),
        lambda content: json.dumps({**json.loads(content), "test": None}).encode(),
    ],
)
def test_a_file_of_something_else_is_not_believed(tmp_path, base, split, spoil):
    file = noted(tmp_path, split)
    good = file.read_bytes()
    file.write_bytes(spoil(good))
    found = beginning_of(tmp_path / "cache", "one", base, split, source_labels=True)
    assert found == beginning_of(tmp_path / "nowhere", "one", base, split, source_labels=True)
    assert noted(tmp_path, split).read_bytes() == good


def test_other_labels_are_begun_with_rows_of_the_seed_s_own(base):
    labels = (*base.plan.labels, "another")
    first, again, other = (as_begun(base, labels, seed) for seed in (0, 0, 1))
    assert as_begun(base, base.plan.labels, 0) is base
    assert first.plan.labels == labels
    assert all((first.weights[name] == again.weights[name]).all() for name in first.weights)
    assert any((first.weights[name] != other.weights[name]).any() for name in first.weights)
