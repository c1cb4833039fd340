"""Networks from plans: the names that Dafne's files use, aliases, and weights that do not fit."""

from dataclasses import replace

import pytest
import torch
from phantoms import make_case, tiny_plan

from dafne_dante.errors import AnnotationError, DamagedModelError, NotEnoughCasesError, UnsupportedModelError
from dafne_dante.models.build import aliases, build_network, build_on_meta, canonical_weights, tie_aliases
from dafne_dante.models.configure import configure_unet3d
from dafne_dante.models.plan import plan_from_net_metadata, plan_to_net_metadata

UNET = tiny_plan()
STRIDES = ((1, 1, 1), (2, 2, 2), (1, 2, 2))
DYNUNET = replace(UNET, architecture="dynunet", strides=STRIDES, kernels=((3, 3, 3),) * 3)
FLAT = replace(UNET, architecture="unet2d", patch=(16, 16), spacing_mm=(2.0, 2.0), median_shape=(24, 20))


@pytest.mark.parametrize(
    ("plan", "name"),
    [
        (UNET, "unet_model.model.0.conv.unit0.conv.weight"),
        (FLAT, "unet_model.model.0.conv.unit0.conv.weight"),
        (DYNUNET, "dyn_unet.input_block.conv1.conv.weight"),
    ],
)
def test_weights_have_the_names_of_dafnes_files(plan, name):
    network = build_network(plan)
    assert name in network.state_dict()
    output = network(torch.zeros(1, 1, *plan.patch))
    assert output.shape == (1, 3, *plan.patch)
    again = build_network(plan, network.state_dict())
    image = torch.randn(1, 1, *plan.patch)
    assert torch.equal(again(image), network(image))


def test_a_dynunet_lists_tensors_twice_and_a_unet_does_not():
    assert aliases(UNET) == {}
    twice = aliases(DYNUNET)
    weights = build_network(DYNUNET).state_dict()
    canonical = canonical_weights(DYNUNET, weights)
    assert twice
    assert len(canonical) == len(weights) - len(twice)
    moved = {name: value + 1 for name, value in canonical.items()}
    tied = tie_aliases(DYNUNET, moved)
    assert tied.keys() == weights.keys()
    assert all(torch.equal(tied[alias], tied[name]) for alias, name in twice.items())
    assert all(torch.equal(tied[name], weights[name] + 1) for name in weights)


def test_weights_that_do_not_fit_are_refused_by_name():
    weights = dict(build_network(UNET).state_dict())
    name = "unet_model.model.0.conv.unit0.conv.weight"
    with pytest.raises(DamagedModelError, match=r"expected weight .*unit0.conv.weight with shape \(4, 1, 3, 3, 3\)"):
        build_network(UNET, {**weights, name: torch.zeros(5, 1, 3, 3, 3)})
    with pytest.raises(DamagedModelError, match="1 missing and 0 unknown"):
        build_network(UNET, {key: value for key, value in weights.items() if key != name})
    with pytest.raises(DamagedModelError, match="0 missing and 1 unknown"):
        build_network(UNET, {**weights, "surplus": torch.zeros(1)})


def test_a_hostile_plan_is_refused_before_anything_is_allocated():
    """A plan of a billion parameters against a handful of weights: names and shapes are compared without memory."""
    huge = replace(UNET, first_channels=1024, levels=3)
    with pytest.raises(DamagedModelError):
        build_network(huge, build_network(UNET).state_dict())


@pytest.mark.parametrize("plan", [UNET, DYNUNET, FLAT])
def test_plans_round_trip_with_net_metadata(plan):
    document = {**plan_to_net_metadata(plan), "unknown_key": [1, 2]}
    read = plan_from_net_metadata(document)
    assert read == replace(plan, extra={"unknown_key": [1, 2]})
    assert plan_to_net_metadata(read) == document


@pytest.mark.parametrize(
    "change",
    [
        {"spatial_dims": 4},
        {"n_levels": 1},
        {"n_levels": 10**6},
        {"in_channels": 0},
        {"out_channels": 7},
        {"labels_name": None},
        {"patch_size": [16, 16]},
        {"patch_size": [16, 16, 10**9]},
        {"median_spacing": [0.0, 1.0, 1.0]},
        {"median_spacing": [float("nan"), 1.0, 1.0]},
        {"kernel_size": 99},
        {"start_channel": 10**6},
        {"num_res_units": 1000},
    ],
)
def test_malformed_plans_are_refused(change):
    with pytest.raises(UnsupportedModelError, match="net_metadata"):
        plan_from_net_metadata({**plan_to_net_metadata(UNET), **change})


@pytest.mark.parametrize("key", ["spatial_dims", "use_dynamic", "labels_name", "patch_size", "median_spacing"])
def test_plans_that_lack_something_are_refused(key):
    document = plan_to_net_metadata(UNET)
    del document[key]
    with pytest.raises(UnsupportedModelError, match=key):
        plan_from_net_metadata(document)


def test_dantes_2d_plans_name_no_patch_so_the_median_slice_is_one():
    document = {**plan_to_net_metadata(FLAT), "patch_size": None, "median_shape": [33, 600]}
    assert plan_from_net_metadata(document).patch == (64, 256)
    for sizes in ([0, 32], [-40, 32], [32], None):
        with pytest.raises(UnsupportedModelError, match="net_metadata"):
            plan_from_net_metadata({**document, "median_shape": sizes})


def test_no_residual_units_are_none_and_not_the_default():
    document = plan_to_net_metadata(UNET)
    assert plan_from_net_metadata({**document, "num_res_units": 0}).residual_units == 0
    assert plan_from_net_metadata({**document, "num_res_units": None}).residual_units == 2


def test_a_plan_follows_its_cases():
    plan = configure_unet3d([make_case(1), make_case(2)])
    assert plan.labels == ("ball", "box")
    assert plan.spacing_mm == (2.0, 2.0, 2.0)
    assert plan.median_shape == (16, 20, 24)
    assert plan.patch == (16, 24, 24)
    large = configure_unet3d([make_case(1, shape=(120, 130, 90))])
    assert torch.tensor(large.patch).prod() <= 32 * 64 * 64
    assert all(size % 8 == 0 for size in large.patch)
    with pytest.raises(NotEnoughCasesError):
        configure_unet3d([])
    with pytest.raises(AnnotationError, match="same labels"):
        configure_unet3d([make_case(1), replace(make_case(2), labels=("ball", "cube"))])


@pytest.mark.parametrize("plan", [UNET, DYNUNET])
def test_what_is_remembered_of_a_plan_is_what_its_network_lists(plan):
    listed = build_on_meta(plan).state_dict()
    weights = {name: torch.full(tensor.shape, float(place)) for place, (name, tensor) in enumerate(listed.items())}
    for _ in range(2):
        tied = tie_aliases(plan, weights)
        assert list(tied) == list(listed)
        assert all(tied[alias] is weights[name] for alias, name in aliases(plan).items())
    with pytest.raises(TypeError):
        aliases(plan)["other"] = "name"
    other = replace(plan, extra={"somebody's": ["note"]})
    assert hash(other) == hash(plan) and other != plan
