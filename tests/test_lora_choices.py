"""What a person may choose of LoRA: which layers, and how many ranks a step leaves out."""

import pytest
import torch
from networks import build

from dafne_dante.adaptation.layers import KINDS, adaptable_layers, kind_of
from dafne_dante.adaptation.lora import attach_lora, lora_factors, plain_weights
from dafne_dante.adaptation.low_rank_method import LowRankAdaptation
from dafne_dante.errors import TrainingError


@pytest.mark.parametrize("kind", ["convolution", "transposed"])
def test_only_the_kinds_asked_for_are_adapted_and_others_keep_their_weight(kind):
    network, image = build("unet 3D")
    layers = adaptable_layers(network)
    method = LowRankAdaptation(rank=1, kinds=(kind,))
    method.prepare(network, image)
    adapted = {name.removesuffix(".weight") for name in lora_factors(network)}
    assert adapted
    assert {kind_of(layers[name]) for name in adapted} == {kind}
    free = {name for name, one in network.named_parameters() if one.requires_grad and one.dim() > 1}
    head = "unet_model.model.2.1.conv.unit0.conv.weight"
    dense = {name for name in free if "parametrizations" not in name}
    assert head in dense
    assert all(kind_of(layers[name.removesuffix(".weight")]) == kind for name in dense - {head})


def test_only_the_layers_that_are_named_are_adapted():
    network, _ = build("unet 2D")
    attach_lora(network, rank=1, layers=("*.submodule.*", "nothing like it"))
    names = list(lora_factors(network))
    assert names
    assert all(".submodule." in name for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("attention",)}, "convolution, transposed, linear, found attention"),
        ({"layers": ("encoder*",)}, "like encoder\\*"),
        ({"kinds": ()}, "of the kinds asked for, found none"),
        ({"dropout": 1.0}, "from 0 to below 1, found 1.0"),
    ],
)
def test_a_choice_that_leaves_nothing_is_refused_and_changes_nothing(options, message):
    network, _ = build("unet 2D")
    with pytest.raises(TrainingError, match=message):
        attach_lora(network, **options)
    assert not lora_factors(network)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert KINDS == ("convolution", "transposed", "linear")


def test_dropout_leaves_out_ranks_in_training_only_and_keeps_the_mean():
    torch.manual_seed(0)
    network, _ = build("unet 2D")
    attach_lora(network, rank=4, dropout=0.5)
    name, layer = next((name, layer) for name, layer in adaptable_layers(network).items()
                       if f"{name}.weight" in lora_factors(network))  # fmt: skip
    update = layer.parametrizations["weight"][0]
    with torch.no_grad():
        update.b.normal_()
    base = layer.parametrizations["weight"].original.detach()
    network.eval()
    whole = layer.weight.detach() - base
    torch.testing.assert_close(plain_weights(network)[f"{name}.weight"] - base, whole)
    network.train()
    drawn = torch.stack([layer.weight.detach() - base for _ in range(3000)])
    assert len(drawn.flatten(1).unique(dim=0)) == 2**4, "each rank is there or not"
    torch.testing.assert_close(drawn.mean(dim=0), whole, atol=0.1 * float(whole.abs().max()), rtol=0)
