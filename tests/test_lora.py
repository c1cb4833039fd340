"""LoRA on single layers of every kind and on every convolution of the networks that Dafne uses."""

from collections import Counter
from copy import deepcopy
from math import prod

import pytest
import torch
from networks import NETWORKS, build, take_steps
from oracles import slow_update, two_layers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dafne_dante.adaptation.first_factors import first_factors, leading_directions
from dafne_dante.adaptation.layers import adaptable_layers
from dafne_dante.adaptation.lora import (
    attach_lora,
    fold_lora,
    lora_factors,
    lora_parameters,
    plain_weights,
    rank_that_pays,
)
from dafne_dante.adaptation.low_rank import LowRank, factor_shapes, rebuild
from dafne_dante.delta.difference import take_difference
from dafne_dante.errors import TrainingError

LAYERS = {
    "conv1d": (lambda: nn.Conv1d(6, 8, 3, padding=1), (2, 6, 9)),
    "conv1d stride dilation": (lambda: nn.Conv1d(6, 8, 3, stride=2, dilation=2), (2, 6, 13)),
    "conv2d": (lambda: nn.Conv2d(6, 8, 3, bias=False), (2, 6, 7, 7)),
    "conv2d uneven": (lambda: nn.Conv2d(6, 8, (1, 5), stride=(2, 1), dilation=(1, 2), padding=(0, 4)), (2, 6, 7, 9)),
    "conv2d groups": (lambda: nn.Conv2d(8, 12, 3, groups=2), (2, 8, 7, 7)),
    "conv2d reflect": (lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), (2, 6, 7, 7)),
    "conv2d circular": (lambda: nn.Conv2d(6, 8, 3, padding=2, padding_mode="circular"), (2, 6, 7, 7)),
    "conv3d": (lambda: nn.Conv3d(6, 8, 3, padding="same"), (2, 6, 5, 5, 5)),
    "conv3d replicate": (lambda: nn.Conv3d(6, 8, 3, padding=1, padding_mode="replicate"), (2, 6, 4, 5, 6)),
    "conv3d depthwise": (lambda: nn.Conv3d(8, 8, 3, groups=8), (2, 8, 5, 5, 5)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(6, 8, 3, stride=2, output_padding=1), (2, 6, 7)),
    "transposed 2d": (lambda: nn.ConvTranspose2d(6, 8, 3, stride=3, padding=1, output_padding=2), (2, 6, 5, 5)),
    "transposed 2d groups": (lambda: nn.ConvTranspose2d(8, 12, 3, groups=2, dilation=2), (2, 8, 5, 5)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(6, 8, (1, 3, 2), stride=(1, 2, 2), bias=False), (2, 6, 3, 4, 4)),
    "transposed 3d depthwise": (lambda: nn.ConvTranspose3d(8, 8, 3, groups=8), (2, 8, 3, 4, 4)),
    "linear": (lambda: nn.Linear(10, 9), (4, 10)),
}
FORMS = ("lora-shared", "lora-channel")
# Per tap a depthwise weight is one column, and a pair of factors is never smaller than that.
LAYERS_AND_FORMS = [(n, f) for n in LAYERS for f in FORMS if not ("depthwise" in n and f == "lora-channel")]


class OperationCount(TorchDispatchMode):
    """Counts what reaches the backend."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def layer_named(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    make, size = LAYERS[name]
    return make(), torch.randn(size)


def fill_factors(network: nn.Module) -> None:
    torch.manual_seed(11)
    with torch.no_grad():
        for group in lora_parameters(network):
            for factor in group:
                factor.normal_(std=0.2)


@pytest.mark.parametrize(("name", "form"), LAYERS_AND_FORMS)
def test_a_layer_starts_as_its_base_and_then_equals_two_layers(name: str, form: str) -> None:
    base, inputs = layer_named(name)
    layer = deepcopy(base)
    attach_lora(layer, rank=2, form=form, scale=1.5)
    assert torch.equal(layer(inputs), base(inputs))

    fill_factors(layer)
    factors = lora_factors(layer)["weight"]
    assert factors.form == ("lora-linear" if name == "linear" else form)
    expected = two_layers(base, slow_update(factors, tuple(base.weight.shape)).float(), inputs)
    assert not torch.allclose(expected, base(inputs), atol=1e-2)
    torch.testing.assert_close(layer(inputs), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(layer.parametrizations.weight.original, base.weight)

    unmerged = layer(inputs)
    fold_lora(layer)
    torch.testing.assert_close(layer(inputs), unmerged, atol=1e-5, rtol=0)
    assert list(layer.state_dict()) == list(base.state_dict())
    assert type(layer) is type(base)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_convolution_of_a_network_equals_two_convolutions(kind: str, form: str) -> None:
    network, image = build(kind)
    base = deepcopy(network)
    attach_lora(network, rank=2, form=form)
    assert torch.equal(network(image), base(image))

    fill_factors(network)
    factors, bases = lora_factors(network), adaptable_layers(base)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in adaptable_layers(network).items():
        layer.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
    network(image)
    assert seen.keys() == bases.keys()
    for name, (inputs, output) in seen.items():
        weight = bases[name].weight
        low_rank = factors.get(f"{name}.weight")
        update = torch.zeros_like(weight) if low_rank is None else rebuild(low_rank, tuple(weight.shape))
        torch.testing.assert_close(output, two_layers(bases[name], update, inputs), atol=1e-5, rtol=1e-5)
    assert len(factors) >= len(bases) - 4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_training_moves_factors_and_vectors_only_and_merges_exactly(kind: str, form: str) -> None:
    network, image = build(kind)
    base = deepcopy(network)
    attach_lora(network, rank=2, form=form)
    take_steps(network, image)
    factors = lora_factors(network)

    for name in factors:
        layer = network.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(layer.parametrizations.weight.original, base.get_parameter(name))
        assert layer.parametrizations.weight.original.grad is None
        assert factors[name].b.abs().max() > 0
    moving = {id(p) for group in lora_parameters(network) for p in group}
    for name, parameter in network.named_parameters():
        dense = not name.endswith("original") and id(parameter) not in moving
        assert parameter.requires_grad == (dense or id(parameter) in moving)
        assert (parameter.grad is not None) == parameter.requires_grad
        assert not dense or name not in factors

    plain = plain_weights(network)
    assert list(plain) == list(base.state_dict())
    merged = build(kind)[0]
    merged.load_state_dict(plain, strict=True)
    torch.testing.assert_close(merged(image), network(image), atol=1e-5, rtol=0)
    assert (merged(image) - base(image)).abs().max() > 1e-3

    unmerged = network(image)
    fold_lora(network)
    torch.testing.assert_close(network(image), unmerged, atol=1e-5, rtol=0)
    assert list(network.state_dict()) == list(base.state_dict())
    assert [name for name, _ in network.named_parameters()] == [name for name, _ in base.named_parameters()]
    assert all(torch.equal(tensor, plain[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_one_convolution_a_layer_and_pass(kind: str, form: str) -> None:
    network, image = build(kind)
    layers = len(adaptable_layers(network))
    attach_lora(network, rank=2, form=form)
    with OperationCount() as forward:
        output = network(image)
    assert forward.operations["convolution"] == layers
    with OperationCount() as backward:
        output.sum().backward()
    assert backward.operations["convolution_backward"] == layers
    assert backward.operations["convolution"] == 0


@pytest.mark.parametrize("form", [*FORMS, "lora-linear"])
def test_rebuild_equals_the_formula(form: str) -> None:
    torch.manual_seed(5)
    shape = (4, 3) if form == "lora-linear" else (4, 3, 2, 3)
    a_shape, b_shape = factor_shapes(form, shape, 2)
    low_rank = LowRank(form, torch.randn(a_shape), torch.randn(b_shape), 0.7)
    torch.testing.assert_close(rebuild(low_rank, shape).double(), slow_update(low_rank, shape), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("form", "shape", "rank", "expected"),
    [
        ("lora-shared", (64, 32, 3, 3, 3), 8, 8),
        ("lora-shared", (64, 32, 3, 3, 3), 100, 59),  # 60 * (64 + 864) are more than 64 * 864
        ("lora-shared", (64, 32, 3, 3, 3), 59, 59),
        ("lora-shared", (32, 1, 3, 3, 3), 8, 8),
        ("lora-shared", (8, 1, 3, 3, 3), 8, 6),  # 6 * (8 + 27) = 210 of 216
        ("lora-shared", (8, 1, 3, 3), 8, 4),
        ("lora-shared", (1, 8, 3, 3), 8, None),
        ("lora-shared", (8, 8, 1, 1), 4, 3),  # 4 * (8 + 8) = 8 * 8: as large
        ("lora-shared", (8, 8, 1, 1), 3, 3),
        ("lora-channel", (32, 1, 3, 3, 3), 1, None),
        ("lora-channel", (64, 32, 3, 3, 3), 8, 8),
        ("lora-channel", (16, 16, 3, 3, 3), 8, 7),
        ("lora-linear", (10, 20), 6, 6),
        ("lora-linear", (10, 20), 7, 6),
    ],
)
def test_rank_is_the_largest_that_pays(form: str, shape: tuple[int, ...], rank: int, expected: int | None) -> None:
    assert rank_that_pays(form, shape, rank) == expected
    numbers = {r: sum(prod(one) for one in factor_shapes(form, shape, r)) for r in range(1, min(rank, shape[0]) + 1)}
    assert expected == max((r for r, count in numbers.items() if count < prod(shape)), default=None)


def test_a_layer_that_is_small_gets_a_lower_rank_and_its_delta_has_it() -> None:
    """Rank 8 would be larger than the first layer's own 216 numbers."""
    network, _ = build("unet 3D")
    base = plain_weights(network)
    attach_lora(network, rank=1000)
    fill_factors(network)
    factors = lora_factors(network)
    for name, low_rank in factors.items():
        of_one = sum(prod(shape) for shape in factor_shapes(low_rank.form, tuple(base[name].shape), 1))
        numbers = low_rank.a.numel() + low_rank.b.numel()
        assert numbers < base[name].numel() and (
            low_rank.rank == min(base[name].shape[0], base[name][0].numel()) or numbers + of_one >= base[name].numel()
        ), name
    assert "unet_model.model.0.conv.unit0.conv.weight" in factors
    updates = take_difference(base, plain_weights(network), factors)
    sizes = {update.weight: update.value for update in updates}
    assert all(sizes[name].rank == low_rank.rank for name, low_rank in factors.items())


def test_weights_whose_factors_would_be_no_smaller_train_densely() -> None:
    network, image = build("unet 3D")
    attach_lora(network, rank=8, form="lora-channel", dense_layers=("unet_model.model.2.0.conv",))
    factors = lora_factors(network)
    first, residual = "unet_model.model.0.conv.unit0.conv.weight", "unet_model.model.0.residual.weight"
    for name in (first, residual, "unet_model.model.2.0.conv.weight"):
        assert name not in factors
        assert network.get_parameter(name).requires_grad
    for name, low_rank in factors.items():
        layer = network.get_submodule(name.removesuffix(".weight"))
        assert low_rank.a.numel() + low_rank.b.numel() < layer.weight.numel()
    before = network.get_parameter(first).detach().clone()
    take_steps(network, image, steps=1)
    assert not torch.equal(network.get_parameter(first), before)


@pytest.mark.parametrize("form", FORMS)
def test_factors_start_orthonormal_from_the_base_weight_and_zero(form: str) -> None:
    torch.manual_seed(2)
    weight = torch.randn(12, 10, 3, 3)
    start = first_factors(weight, form=form, rank=4, scale=1.0)
    again = first_factors(weight.clone(), form=form, rank=4, scale=1.0)
    assert torch.equal(start.a, again.a)
    assert not start.b.any()
    identity = torch.eye(4).expand(*start.a.shape[:-2], 4, 4)
    torch.testing.assert_close(start.a.mT @ start.a, identity, atol=1e-5, rtol=0)
    matrix = weight.reshape(12, 10, 9).permute(2, 0, 1) if form == "lora-channel" else weight.reshape(12, 90)
    best = torch.linalg.svd(matrix, full_matrices=False)[0][..., :4]
    torch.testing.assert_close((best.mT @ start.a).abs(), identity, atol=1e-4, rtol=0)


@pytest.mark.parametrize("matrix", [torch.zeros(6, 9), torch.ones(6, 9), torch.eye(6)[:, :2]])
def test_directions_stay_orthonormal_beyond_the_rank_of_the_matrix(matrix: Tensor) -> None:
    columns = leading_directions(matrix, 5)
    torch.testing.assert_close(columns.T @ columns, torch.eye(5), atol=1e-5, rtol=0)


def test_a_copy_lives_on_when_the_other_is_folded() -> None:
    network, image = build("dynunet 2D")
    attach_lora(network, rank=2)
    fill_factors(network)
    copy = deepcopy(network)
    expected = network(image)
    fold_lora(copy)
    assert torch.equal(network(image), expected)
    torch.testing.assert_close(copy(image), expected, atol=1e-5, rtol=0)
    fold_lora(network)
    assert torch.equal(network(image), copy(image))


def test_a_checkpoint_restores_the_factors() -> None:
    network, image = build("unet 2D")
    attach_lora(network, rank=2)
    take_steps(network, image)
    restored, _ = build("unet 2D")
    attach_lora(restored, rank=2)
    restored.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(restored(image), network(image))
    assert all(torch.equal(f.b, lora_factors(restored)[n].b) for n, f in lora_factors(network).items())


def test_evaluation_mode_merges_nothing() -> None:
    network, _ = build("unet 2D")
    attach_lora(network, rank=2)
    fill_factors(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.eval().train().eval()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert before.keys() == network.state_dict().keys()


def test_plain_weights_are_copies_and_need_no_lora() -> None:
    network, _ = build("unet 2D")
    plain = plain_weights(network)
    state = network.state_dict()
    assert list(plain) == list(state)
    for name, tensor in plain.items():
        assert torch.equal(tensor, state[name])
        assert tensor.data_ptr() != state[name].data_ptr()
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
    assert lora_factors(network) == {}
    fold_lora(network)
    assert list(network.state_dict()) == list(plain)


def test_autocast_does_not_round_the_merged_weight() -> None:
    layer = nn.Conv2d(6, 8, 3)
    attach_lora(layer, rank=2)
    fill_factors(layer)
    outside = layer.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.weight, outside)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (nn.Conv2d(6, 8, 3), {"rank": 0}, "rank from 1"),
        (nn.Conv2d(6, 8, 3), {"scale": 0.0}, "scale above 0"),
        (nn.Conv2d(6, 8, 3), {"scale": float("inf")}, "scale above 0"),
        (nn.Conv2d(6, 8, 3), {"form": "lora-linear"}, "lora-channel, lora-shared"),
        (nn.Conv2d(6, 8, 3), {"dense_layers": ("head",)}, "found head"),
        (nn.PReLU(), {}, "found none"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 8, 3)), {}, "1 parametrised"),
    ],
)
def test_what_cannot_be_adapted_is_refused(network: nn.Module, options: dict, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        attach_lora(network, **options)


def test_a_weight_that_is_not_finite_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 3))
    with torch.no_grad():
        network[1].weight[0, 0, 0, 0] = float("nan")
    names = list(network.state_dict())
    with pytest.raises(TrainingError, match="finite"):
        attach_lora(network, rank=2)
    assert list(network.state_dict()) == names
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_attaching_twice_is_refused() -> None:
    network = nn.Conv2d(6, 8, 3)
    attach_lora(network, rank=2)
    with pytest.raises(TrainingError, match="fold"):
        attach_lora(network, rank=2)
