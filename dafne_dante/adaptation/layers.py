"""The layers whose weight a low-rank update fits: every convolution, transposed or not, and the linear layer.

Terms: a layer's name is its dotted path in the network ("" for the network itself); a module that is reachable by
several paths (MONAI's DynUNet keeps its blocks twice) has its first path as its name and the others as aliases.
"""

from torch import nn

__all__ = ["KINDS", "adaptable_layers", "channels_made", "is_adaptable", "join_name", "kind_of", "owner_of"]

_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "convolution": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "transposed": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    "linear": (nn.Linear,),
}
KINDS: tuple[str, ...] = tuple(_KINDS)
_ADAPTABLE = tuple(layer for layers in _KINDS.values() for layer in layers)


def is_adaptable(module: nn.Module) -> bool:
    """Whether the module's `weight` is that of a convolution or of a linear layer."""
    return isinstance(module, _ADAPTABLE)


def adaptable_layers(network: nn.Module, *, aliases: bool = False) -> dict[str, nn.Module]:
    """Name to layer, in the order of `named_modules`; with `aliases`, every path and not only the first."""
    modules = network.named_modules(remove_duplicate=not aliases)
    return {name: module for name, module in modules if is_adaptable(module)}


def kind_of(layer: nn.Module) -> str:
    """Which of KINDS an adaptable layer is."""
    return next(kind for kind, layers in _KINDS.items() if isinstance(layer, layers))


def channels_made(layer: nn.Module) -> int:
    """Output channels of a convolution, output features of a linear layer."""
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def join_name(owner: str, name: str) -> str:
    """The dotted path of `name` within the module `owner`."""
    return f"{owner}.{name}" if owner else name


def owner_of(name: str) -> str:
    """The dotted path of the module that holds the parameter or buffer `name`; "" for the network itself."""
    return name.rpartition(".")[0]
