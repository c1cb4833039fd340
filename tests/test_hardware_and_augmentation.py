"""Numerics are probed once and remembered; intensity changes are drawn apart from their application."""

import json

import torch
from phantoms import tiny_plan

from dafne_dante.models.build import build_network
from dafne_dante.training.augmentation import apply_intensity, draw_intensity
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


def test_strength_zero_changes_nothing_and_a_seed_repeats():
    image = torch.randn(3, 1, 4, 5, 6)
    generator = torch.Generator().manual_seed(1)
    assert torch.allclose(apply_intensity(image, draw_intensity(3, 0.0, generator), generator), image, atol=1e-5)
    results = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(2)
        results.append(apply_intensity(image, draw_intensity(3, 1.0, generator), generator))
    assert torch.equal(*results)
    assert not torch.allclose(results[0], image, atol=0.1)


def test_draws_stay_in_their_ranges_and_empty_voxels_stay_empty():
    generator = torch.Generator().manual_seed(3)
    draw = draw_intensity(1000, 1.0, generator)
    assert draw.gain.min() >= 0.75
    assert draw.gain.max() <= 1.25
    assert draw.shift.abs().max() <= 0.2
    assert 0.70 < draw.gamma.min() < draw.gamma.max() < 1.42
    assert 0 <= draw.noise.min() < draw.noise.max() <= 0.15
    image = torch.randn(2, 1, 6, 6, 6)
    image[:, :, :2] = 0
    changed = apply_intensity(image, draw_intensity(2, 1.0, generator), generator)
    assert not changed[:, :, :2].any()
    assert (changed[:, :, 2:] != image[:, :, 2:]).all()
