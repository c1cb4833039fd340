"""Numerics are probed once and remembered, and the network is left as it was."""

import json

import torch
from phantoms import tiny_plan

from dafne_dante.models.build import build_network
from dafne_dante.training.hardware import (
    Numerics,
    as_channels_last,
    choose_device,
    remembered_numerics,
    set_memory_format,
)

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
