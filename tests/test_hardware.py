"""Numerics are probed once and remembered, and the network is left as it was."""

import json
from types import SimpleNamespace

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


@pytest.mark.parametrize(
    ("capability", "hip", "native"),
    [((7, 5), None, False), ((8, 0), None, True), ((9, 0), None, True), ((9, 0), "6", True)],
)
def test_a_gpu_computes_in_bfloat16_where_it_has_it_and_not_where_it_emulates_it(
    tmp_path, monkeypatch, capability, hip, native
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a fake")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **options: True)  # as of one that emulates it
    monkeypatch.setattr(torch.version, "hip", hip)
    on_gpu = SimpleNamespace(device=torch.device("cuda", 0))
    network = SimpleNamespace(parameters=lambda: iter([on_gpu]))
    assert remembered_numerics(network, PLAN, 1, tmp_path) == Numerics(bfloat16=native, channels_last=True)


def test_nothing_is_computed_in_float16_on_a_cpu(tmp_path, monkeypatch):
    """Neither by the probe, on a processor that has every choice, nor by a training with bfloat16."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(hardware, "_PROBE_SECONDS", 60.0)
    monkeypatch.setenv(hardware.DEVICE_VARIABLE, "cpu")
    seen = set()
    network = build_network(PLAN)
    for module in network.modules():
        module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    remembered_numerics(network, PLAN, 1, tmp_path)
    cases = prepare_cases([make_case(1)], PLAN)
    recipe = Recipe(epochs=1, steps_per_epoch=1, numerics=Numerics(bfloat16=True))
    fit(network, PLAN, FullFineTuning(), cases, cases, recipe=recipe)
    assert seen == {torch.float32, torch.bfloat16}
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
