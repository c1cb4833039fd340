"""Networks from a plan, with the state-dict names that Dafne's files use.

Terms: an *alias* is a second state-dict name of one and the same tensor. MONAI's DynUNet registers its blocks twice
(once by name, once inside its skip layers), and Dafne's files carry both; the *canonical* name is the one under which
the parameter is listed first.

Invariants: nothing is allocated before the weights' names and shapes were compared with the plan (on the meta
device), so that a hostile plan cannot exhaust memory; loading is strict.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

from dafne_dante.errors import DamagedModelError
from dafne_dante.models.plan import ModelPlan

__all__ = [
    "DynamicUnet",
    "PlainUnet",
    "aliases",
    "build_network",
    "build_on_meta",
    "canonical_weights",
    "tie_aliases",
    "unet_strides",
]


class PlainUnet(nn.Module):
    """MONAI's residual U-Net under the attribute that Dafne's weights name; (B, C, *patch) to (B, classes, *patch)."""

    def __init__(self, plan: ModelPlan) -> None:
        super().__init__()
        self.unet_model = UNet(
            spatial_dims=plan.dimensions,
            in_channels=plan.in_channels,
            out_channels=plan.out_channels,
            channels=[plan.first_channels * 2**level for level in range(plan.levels)],
            strides=unet_strides(plan),
            kernel_size=plan.kernel,
            num_res_units=plan.residual_units,
            norm="INSTANCE",
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes, *patch) for images (B, C, *patch)."""
        logits: Tensor = self.unet_model(image)
        return logits


class DynamicUnet(nn.Module):
    """MONAI's DynUNet under the attribute that Dafne's weights name; (B, C, *patch) to (B, classes, *patch)."""

    def __init__(self, plan: ModelPlan) -> None:
        super().__init__()
        self.dyn_unet = DynUNet(
            spatial_dims=plan.dimensions,
            in_channels=plan.in_channels,
            out_channels=plan.out_channels,
            kernel_size=[list(kernel) for kernel in plan.kernels],
            strides=[list(stride) for stride in plan.strides],
            upsample_kernel_size=[list(stride) for stride in plan.strides[1:]],
            norm_name=("INSTANCE", {"affine": True}),
            deep_supervision=False,
            res_block=True,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes, *patch) for images (B, C, *patch)."""
        logits: Tensor = self.dyn_unet(image)
        return logits


def unet_strides(plan: ModelPlan) -> list[Any]:
    """Strides between the levels, (Z, X, Y) or (X, Y): the first level keeps its size (DAFNE.md section 1).

    Stock Dafne lists one stride more than there are steps between levels; MONAI ignores the last, so it is left out.
    """
    if plan.dimensions == 2:
        strides: list[Any] = [(1, 1)] + [(2, 2)] * (plan.levels - 1)
    else:
        strides = [(1, 1, 1)] + [(2, 2, 2) if level <= 2 else (1, 2, 2) for level in range(1, plan.levels)]
    return strides[: plan.levels - 1]


def build_network(plan: ModelPlan, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The network of a plan, in evaluation mode, with `weights` loaded or freshly initialised by torch's seed.

    Raises:
        DamagedModelError: names or shapes of the weights are not those of the plan.
    """
    if weights is None:
        return _construct(plan).eval()
    _compare(plan, weights)
    network = _construct(plan)
    network.load_state_dict(dict(weights), strict=True)
    return network.eval()


def build_on_meta(plan: ModelPlan) -> nn.Module:
    """The network on torch's meta device: names, shapes and no values; DamagedModelError as build_network."""
    with torch.device("meta"):
        return _construct(plan)


def aliases(plan: ModelPlan) -> Mapping[str, str]:
    """Alias to canonical name, for every tensor that the state dict lists twice; empty for a plain U-Net."""
    return _outline(plan).twice


def canonical_weights(plan: ModelPlan, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without their aliases: every tensor once."""
    twice = aliases(plan)
    return {name: tensor for name, tensor in weights.items() if name not in twice}


def tie_aliases(plan: ModelPlan, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in the state dict's own order with every alias set to its canonical tensor."""
    outline = _outline(plan)
    return {name: weights[outline.twice.get(name, name)] for name in outline.shapes}


@dataclass(frozen=True)
class _Outline:
    """What a plan's state dict lists: name to shape, in its order, and alias to canonical name."""

    shapes: Mapping[str, tuple[int, ...]]
    twice: Mapping[str, str]


@lru_cache(maxsize=8)
def _outline(plan: ModelPlan) -> _Outline:
    """Remembered, since a network is built for it, which takes longer than most of what asks for it."""
    network = build_on_meta(plan)
    first: dict[int, str] = {}
    twice: dict[str, str] = {}
    for name, tensor in [*network.named_parameters(remove_duplicate=False), *network.named_buffers()]:
        canonical = first.setdefault(id(tensor), name)
        if canonical != name:
            twice[name] = canonical
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return _Outline(MappingProxyType(shapes), MappingProxyType(twice))


def _construct(plan: ModelPlan) -> nn.Module:
    try:
        return DynamicUnet(plan) if plan.architecture == "dynunet" else PlainUnet(plan)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise DamagedModelError(f"no network can be built from this plan ({error}); ask who made the model") from error


def _compare(plan: ModelPlan, weights: Mapping[str, Tensor]) -> None:
    expected = _outline(plan).shapes
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    if missing or surplus:
        raise DamagedModelError(
            f"expected the {len(expected)} weights of a {plan.architecture}, found {len(missing)} missing and "
            f"{len(surplus)} unknown (first: {(missing + surplus)[0][:120]}); the file's plan and weights do not match"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise DamagedModelError(f"expected weight {name} with shape {shape}, found {found[name]}")
