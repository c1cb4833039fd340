"""The stages of a network in the order in which data runs through them.

Terms: a module *runs first* when its forward pass starts for the first time; a stage is a block of a U-Net (encoder
block, bottleneck, decoder block, output block) or, in any other network, a child of the root; a module of its own
stands for the paper's finer unit.

Invariants: order is measured by running the network, never read from names or from the order of registration (the
residual branch of MONAI's units is registered last and runs first); every parameter belongs to exactly one stage; the
network is left as it was, training modes and running statistics included.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

from dafne_dante.adaptation.layers import adaptable_layers, channels_made, join_name, owner_of
from dafne_dante.errors import TrainingError
from dafne_dante.models.predict import evaluating

__all__ = ["Stage", "execution_order", "module_stages", "output_head", "stages"]


@dataclass(frozen=True)
class Stage:
    """A part of the network that is frozen or released as a whole.

    Attributes:
        name: dotted path of the block or module; "" where parameters hang on the network itself.
        parameter_names: as `named_parameters` lists them.
        module_names: modules that hold those parameters, and those that hold buffers such as running statistics.
    """

    name: str
    parameter_names: tuple[str, ...]
    module_names: tuple[str, ...]


def execution_order(network: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Names of the modules that hold parameters, in the order in which they run first; idle ones are not listed.

    Raises:
        TrainingError: the network cannot run `example` (B, C, *patch).
    """
    owners = {owner_of(name) for name, _ in network.named_parameters()}
    return _run(network, example, owners)[0]


def output_head(network: nn.Module, example: Tensor) -> str | None:
    """Name of the last convolution or linear layer to run first that makes as many channels as the output has.

    None where there is none. TrainingError: the network cannot run `example` (B, C, *patch).
    """
    layers = adaptable_layers(network)
    order, output = _run(network, example, layers)
    heads = [
        name
        for name in order
        if channels_made(layers[name]) == output.shape[-1 if isinstance(layers[name], nn.Linear) else 1]
    ]
    return heads[-1] if heads else None


def stages(network: nn.Module, example: Tensor) -> tuple[Stage, ...]:
    """The network's stages in the order in which they run first; what never runs comes last.

    Raises:
        TrainingError: the network cannot run `example` (B, C, *patch).
    """
    blocks = _blocks(network)
    grouped: dict[str, list[str]] = {}
    for owner in _ordered_owners(network, example):
        block = next((name for name in blocks if owner == name or owner.startswith(f"{name}.")), None)
        grouped.setdefault(owner.partition(".")[0] if block is None else block, []).append(owner)
    return tuple(_stage(network, name, owners) for name, owners in grouped.items())


def module_stages(network: nn.Module, example: Tensor) -> tuple[Stage, ...]:
    """One stage a module with parameters, in the order in which they run first; buffers go with the module before.

    Raises:
        TrainingError: the network cannot run `example` (B, C, *patch).
    """
    with_parameters = {owner_of(name) for name, _ in network.named_parameters()}
    groups: list[list[str]] = []
    for owner in _ordered_owners(network, example):
        if owner in with_parameters or not groups:
            groups.append([owner])
        else:
            groups[-1].append(owner)
    return tuple(_stage(network, owners[0], owners) for owners in groups)


def _run(network: nn.Module, example: Tensor, names: Iterable[str]) -> tuple[tuple[str, ...], Tensor]:
    """Those of `names` that run, by their first run, and the network's output."""
    started: dict[str, None] = {}
    watched = {module: name for name, module in network.named_modules() if name in set(names)}

    def note(module: nn.Module, _inputs: object) -> None:
        started.setdefault(watched[module])

    handles = [module.register_forward_pre_hook(note) for module in watched]
    try:
        with evaluating(network), torch.no_grad():
            output = network(example)
    except RuntimeError as error:
        shape = tuple(example.shape)
        raise TrainingError(f"expected an example that the network can run, found {shape}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    return tuple(started), output


def _ordered_owners(network: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Modules that hold parameters or buffers, by their first run; those that never run come last."""
    names = [name for name, _ in (*network.named_parameters(), *network.named_buffers())]
    owners = dict.fromkeys(owner_of(name) for name in names)
    order, _ = _run(network, example, owners)
    return tuple(dict.fromkeys((*order, *owners)))


def _stage(network: nn.Module, name: str, owners: list[str]) -> Stage:
    listed = {parameter for parameter, _ in network.named_parameters()}
    names = [
        join_name(owner, parameter)
        for owner in owners
        for parameter, _ in network.get_submodule(owner).named_parameters(recurse=False)
    ]
    return Stage(name, tuple(parameter for parameter in names if parameter in listed), tuple(owners))


def _blocks(network: nn.Module) -> tuple[str, ...]:
    """Paths of the blocks of the first U-Net or DynUNet within the network; empty where there is neither."""
    for name, module in network.named_modules():
        if isinstance(module, UNet):
            return tuple(_unet_blocks(module.model, join_name(name, "model")))
        if isinstance(module, DynUNet):
            return tuple(join_name(name, block) for block in _dynunet_blocks(module))
    return ()


def _unet_blocks(level: nn.Module, name: str) -> Iterator[str]:
    """MONAI nests the levels: (down, skip around the next level, up); the innermost is the bottleneck itself."""
    if isinstance(level, nn.Sequential) and len(level) == 3 and isinstance(level[1], SkipConnection):
        yield f"{name}.0"
        yield from _unet_blocks(level[1].submodule, f"{name}.1.submodule")
        yield f"{name}.2"
    else:
        yield name


def _dynunet_blocks(network: DynUNet) -> Iterator[str]:
    yield "input_block"
    yield from (f"downsamples.{index}" for index in range(len(network.downsamples)))
    yield "bottleneck"
    yield from (f"upsamples.{index}" for index in range(len(network.upsamples)))
    yield "output_block"
    if network.deep_supervision:
        yield from (f"deep_supervision_heads.{index}" for index in range(len(network.deep_supervision_heads)))
