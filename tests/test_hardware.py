"""Numerics are probed once and remembered, and the network is left as it was."""

import json

import pytest
import torch
from phantoms import make_case, tiny_plan

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.models.build import build_network
from dafne_dante.training import hardware
from dafne_dante.training.hardware import (
    Numerics,
    as_channels_last,
    choose_device,
    remembered_numerics,
    set_memory_format,
)
from dafne_dante.training.loop import fit
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.recipe import Recipe

PLAN = tiny_plan()


def test_numerics_are_probed_once_and_the_network_is_left_as_it_was(tmp_path):
    network = build_network(PLAN)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    chosen = remembered_numerics(network, PLAN, 1, tmp_path)
    stored = json.loads((tmp_path / "hardware.json").read_text())
    assert [Numerics(**value) for value in stored.values()] == [chosen]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.is_contiguous() for parameter in network.parameters())
    other = Numerics(bfloat16=not chosen.bfloat16, channels_last=not chosen.channels_last)
    key = next(iter(stored))
    (tmp_path / "hardware.json").write_text(json.dumps({key: vars(other)}))
    assert remembered_numerics(network, PLAN, 1, tmp_path) == other
    (tmp_path / "hardware.json").write_text("{broken")
    assert isinstance(remembered_numerics(network, PLAN, 1, tmp_path), Numerics)


def test_memory_format_changes_no_value():
    network = build_network(PLAN)
    image = torch.randn(1, 1, *PLAN.patch)
    plain = network(image)
    set_memory_format(network, channels_last=True)
    weights = [parameter for parameter in network.parameters() if parameter.dim() == 5 and parameter.shape[1] > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in weights)
    assert torch.allclose(network(as_channels_last(image)), plain, atol=1e-4)
    set_memory_format(network, channels_last=False)
    assert all(parameter.is_contiguous() for parameter in network.parameters())


def test_the_device_is_one_that_there_is():
    assert torch.zeros(1, device=choose_device()).sum() == 0


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def probed(tmp_path, monkeypatch, cost):
    """What is chosen where a step takes `cost(numerics)` seconds of a clock of its own, and what was tried."""
    tried, now = [], [0.0]

    def timed(network, plan, batch_size, numerics):
        tried.append(numerics)
        now[0] += 3 * cost(numerics)
        return cost(numerics)

    monkeypatch.setattr(hardware, "_time", timed)
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: now[0])
    monkeypatch.setenv(hardware.DEVICE_VARIABLE, "cpu")
    return remembered_numerics(build_network(PLAN), PLAN, 1, tmp_path), tried


def test_fewer_threads_are_kept_where_they_are_faster(tmp_path, monkeypatch, four_threads):
    chosen, tried = probed(tmp_path, monkeypatch, lambda one: 0.01 if one.threads == 2 else 0.02)
    assert (chosen.threads, chosen.channels_last) == (2, False)
    assert tried[0] == Numerics() and all(one.threads == 2 for one in tried[1:])
    stored = json.loads((tmp_path / "hardware.json").read_text())
    assert [value["threads"] for value in stored.values()] == [2]


def test_a_little_faster_is_not_enough(tmp_path, monkeypatch, four_threads):
    chosen, _ = probed(tmp_path, monkeypatch, lambda one: 0.0095 if one.threads or one.channels_last else 0.01)
    assert chosen == Numerics()


def test_a_slow_network_is_not_probed_for_longer_than_two_seconds(tmp_path, monkeypatch, four_threads):
    chosen, tried = probed(tmp_path, monkeypatch, lambda one: 0.1 if one.channels_last else 1.0)
    assert (chosen, len(tried)) == (Numerics(), 1)


def test_threads_are_given_back_and_never_more_than_there_were(four_threads):
    with Numerics(threads=2).threads_in_use():
        assert torch.get_num_threads() == 2
    with Numerics(threads=64).threads_in_use():
        assert torch.get_num_threads() == 4
    with pytest.raises(ValueError, match="stop"), Numerics(threads=1).threads_in_use():
        assert torch.get_num_threads() == 1
        raise ValueError("stop")
    assert torch.get_num_threads() == 4


def test_a_training_computes_with_its_threads(four_threads):
    seen = []
    cases = prepare_cases([make_case(1)], PLAN)
    recipe = Recipe(epochs=1, steps_per_epoch=1, numerics=Numerics(threads=3))
    fit(build_network(PLAN), PLAN, FullFineTuning(), cases, (), recipe=recipe,
        on_epoch=lambda record: seen.append(torch.get_num_threads()))  # fmt: skip
    assert (seen, torch.get_num_threads()) == ([3], 4)
