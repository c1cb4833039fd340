"""Weights out of the checkpoints that Dante writes while it trains.

What is known of dante-trainer 1.0.3b3, by reading a checkpoint: the network's weights have a prefix before the names
that its model file has; a layer with LoRA has base_module.weight and .bias, delta_weight_A (*kernel, O, r),
delta_weight_B (*kernel, r, I), alpha and rank, and its weight (O, I, *kernel), of a transposed convolution (I, O,
*kernel), is the base's plus alpha / rank times the product of every kernel tap. A transposed one is known by its shape:
in a U-Net it has fewer channels after it than before.

Invariants: a checkpoint is read without executing anything of it; what does not have the network's tensors is refused.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dafne_dante.errors import TrainingError

__all__ = ["lora_numbers", "read_checkpoint"]

_NETWORK = "unet_model."
_A, _B, _BASE = ".delta_weight_A", ".delta_weight_B", ".base_module"


def read_checkpoint(path: Path, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Plain weights under the names and in the shapes of `names`, LoRA merged.

    Raises:
        TrainingError: the file is damaged, or of another network.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            "expected a checkpoint of Dante's, found a file that cannot be read; run it again"
        ) from error
    weights = _plain({_short(name): tensor for name, tensor in found.items()})
    by_name = {_short(name): name for name in names}
    read = {by_name[name]: tensor for name, tensor in weights.items() if name in by_name}
    if read.keys() != names.keys() or any(read[name].shape != names[name].shape for name in names):
        raise TrainingError("expected a checkpoint of the network that Dante was given, found another one's")
    return {name: read[name] for name in names}


def lora_numbers(path: Path) -> int:
    """How many numbers LoRA has in a checkpoint; 0 without it. Errors as torch.load."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    return sum(tensor.numel() for name, tensor in found.items() if name.endswith((_A, _B)))


def _short(name: str) -> str:
    return name.rpartition(_NETWORK)[2]


def _plain(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if name.endswith((_A, _B, ".alpha", ".rank")):
            continue
        plain = name.replace(_BASE, "")
        layer = name.removesuffix(_BASE + ".weight")
        weights[plain] = tensor + _update(found, layer, tensor.shape) if layer + _A in found else tensor
    return weights


def _update(found: Mapping[str, Tensor], layer: str, shape: torch.Size) -> Tensor:
    a, b = found[layer + _A], found[layer + _B]
    product = torch.matmul(a, b) * (found[layer + ".alpha"] / found[layer + ".rank"])
    taps = range(product.ndim - 2)
    update = product.permute(-2, -1, *taps)
    return update if update.shape == shape else product.permute(-1, -2, *taps)
