"""The methods behind the protocol: what moves, in which groups, and what is left at the end."""

from copy import deepcopy

import pytest
import torch
from networks import NETWORKS, build, take_steps
from torch import nn

from dafne_dante.adaptation.baselines import FromScratch, FullFineTuning, HeadOnly, NormOnly
from dafne_dante.adaptation.gradual import GradualUnfreezing
from dafne_dante.adaptation.layers import adaptable_layers
from dafne_dante.adaptation.lora import lora_parameters, plain_weights
from dafne_dante.adaptation.low_rank import rebuild
from dafne_dante.adaptation.low_rank_method import LowRankAdaptation
from dafne_dante.adaptation.method import METHOD_NAMES, method_named
from dafne_dante.adaptation.protocol import Method, trainable_parameters
from dafne_dante.adaptation.stages import module_stages
from dafne_dante.adaptation.unfreezing import PaperSchedule
from dafne_dante.errors import TrainingError


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_groups_hold_each_trainable_parameter_once(name: str, kind: str) -> None:
    network, image = build(kind)
    method = method_named(name)
    assert method.name == name
    method.prepare(network, image)
    method.advance(network, 1, 10)
    groups = method.parameter_groups(network)
    listed = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(listed) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    assert len({group.name for group in groups}) == len(groups)
    assert all(group.parameters for group in groups)
    assert trainable_parameters(network) == sum(p.numel() for group in groups for p in group.parameters)
    factors = {id(p) for factor in lora_parameters(network) for p in factor}
    for group in groups:
        for parameter in group.parameters:
            assert group.weight_decay == (parameter.dim() > 1 and id(parameter) not in factors)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_whole_run_ends_in_plain_weights_that_give_the_same_output(name: str, kind: str) -> None:
    network, image = build(kind)
    base = deepcopy(network)
    method = method_named(name)
    method.prepare(network, image)
    for epoch in (1, 2, 3):
        network.train()
        method.advance(network, epoch, 3)
        take_steps(network, image, steps=1)
    trained, plain, factors = network(image), plain_weights(network), method.factors(network)
    method.finish(network)
    torch.testing.assert_close(network(image), trained, atol=1e-5, rtol=0)
    assert list(network.state_dict()) == list(base.state_dict())
    assert all(torch.equal(tensor, plain[key]) for key, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not torch.allclose(network(image), base(image), atol=1e-3)
    assert bool(factors) == (name == "lora")
    for key, low_rank in factors.items():
        weight = base.get_parameter(key)
        torch.testing.assert_close(plain[key], weight + rebuild(low_rank, tuple(weight.shape)), atol=1e-7, rtol=0)


def test_what_may_move_by_method() -> None:
    counts = {}
    for name in METHOD_NAMES:
        network, image = build("unet 3D")
        method_named(name).prepare(network, image)
        counts[name] = trainable_parameters(network)
    everything = sum(parameter.numel() for parameter in build("unet 3D")[0].parameters())
    assert counts["full"] == counts["scratch"] == everything
    assert 0 < counts["norm"] < 0.01 * everything
    assert 0 < counts["head"] < 0.01 * everything
    assert counts["lora"] < 0.35 * everything
    assert counts["lora"] < counts["gradual-unfreezing"] < everything


@pytest.mark.parametrize("form", ["lora-shared", "lora-channel"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_lora_trains_the_head_densely_and_passes_its_options_on(kind: str, form: str) -> None:
    network, image = build(kind)
    method = LowRankAdaptation(rank=1, form=form, scale=3.0, b_learning_rate_scale=8.0)
    method.prepare(network, image)
    factors = method.factors(network)
    assert {(f.rank, f.form, f.scale) for f in factors.values()} == {(1, form, 3.0)}
    head = "unet_model.model.2.1.conv.unit0.conv" if kind.startswith("unet") else "dyn_unet.output_block.conv.conv"
    assert f"{head}.weight" not in factors
    assert network.get_parameter(f"{head}.weight").requires_grad
    scales = {group.name: group.learning_rate_scale for group in method.parameter_groups(network)}
    assert scales == {"factors A": 1.0, "factors B": 8.0, "weights": 1.0, "vectors": 1.0}
    assert not method.advance(network, 1, 5)


def test_lora_leaves_out_groups_that_would_be_empty() -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 1, bias=False), nn.Conv1d(2, 2, 1, bias=False))
    method = LowRankAdaptation()
    method.prepare(network, torch.zeros(1, 1, 4))
    assert [group.name for group in method.parameter_groups(network)] == ["weights"]


def test_group_names_stand_for_the_same_parameters_throughout() -> None:
    network, image = build("dynunet 2D")
    method = GradualUnfreezing()
    method.prepare(network, image)
    seen: dict[str, tuple[int, ...]] = {}
    for epoch in range(1, 9):
        method.advance(network, epoch, 8)
        for group in method.parameter_groups(network):
            members = tuple(id(parameter) for parameter in group.parameters)
            assert seen.setdefault(group.name, members) == members
    assert len(seen) > 4


def test_the_papers_schedule_runs_on_modules() -> None:
    network, image = build("unet 3D")
    method = GradualUnfreezing(PaperSchedule(0.5), unit="module")
    method.prepare(network, image)
    units = module_stages(network, image)

    def frozen() -> int:
        return sum(not network.get_parameter(unit.parameter_names[0]).requires_grad for unit in units)

    assert frozen() == len(units) // 2
    steps = [(method.advance(network, epoch, 50), frozen()) for epoch in range(1, 51)]
    assert [epoch for epoch, (changed, _) in enumerate(steps, start=1) if changed] == [5, 10, 15, 20]
    assert steps[-1][1] == 0


def test_a_resumed_run_has_the_same_stages_free() -> None:
    network, image = build("unet 2D")
    method = GradualUnfreezing()
    method.prepare(network, image)
    for epoch in range(1, 5):
        method.advance(network, epoch, 10)
    resumed, _ = build("unet 2D")
    again = method_named("gradual-unfreezing")
    again.prepare(resumed, image)
    assert again.advance(resumed, 4, 10)
    assert [p.requires_grad for p in resumed.parameters()] == [p.requires_grad for p in network.parameters()]


@pytest.mark.parametrize("use", [lambda m, n: m.advance(n, 1, 2), lambda m, n: m.parameter_groups(n)])
def test_gradual_unfreezing_must_be_prepared(use) -> None:
    with pytest.raises(TrainingError, match="prepare"):
        use(GradualUnfreezing(), nn.Conv1d(1, 1, 1))


def test_a_network_without_parameters_is_refused() -> None:
    with pytest.raises(TrainingError, match="found none"):
        GradualUnfreezing().prepare(nn.Flatten(), torch.zeros(1, 1, 4))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dora", {}, "full, gradual-unfreezing, head, lora, norm, scratch, found dora"),
        (
            "lora",
            {"ranks": 4},
            "rank, form, scale, b_learning_rate_scale, dropout, kinds, layers, pull_to_start, found ranks",
        ),
        ("full", {"rank": 4}, "pull_to_start, elastic, found rank"),
        ("head", {"rank": 4}, "no option, found rank"),
        ("gradual-unfreezing", {"_stages": ()}, "found _stages"),
    ],
)
def test_unknown_methods_and_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        method_named(name, **options)


def test_names_and_classes() -> None:
    assert METHOD_NAMES == ("full", "gradual-unfreezing", "head", "lora", "norm", "scratch")
    methods: list[Method] = [method_named(name) for name in METHOD_NAMES]
    classes = [FullFineTuning, GradualUnfreezing, HeadOnly, LowRankAdaptation, NormOnly, FromScratch]
    assert [type(method) for method in methods] == classes
    assert method_named("lora", rank=2) == LowRankAdaptation(rank=2)


def test_full_fine_tuning_releases_what_another_method_froze() -> None:
    network, image = build("unet 2D")
    network.requires_grad_(False)
    FullFineTuning().prepare(network, image)
    assert trainable_parameters(network) == sum(parameter.numel() for parameter in network.parameters())
    assert adaptable_layers(network)
