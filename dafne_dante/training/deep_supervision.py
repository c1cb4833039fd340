"""Losses at lower resolutions for a DynUNet, in training only (Lee et al. 2015, arXiv 1409.5185; nnU-Net).

Terms: an *auxiliary head* is a 1 x 1 convolution on what a decoder stage makes, at half or a quarter of the resolution.

Invariants: the heads stand beside the network, never in it: its weights, their names and its output are those that
stock clients know, with and without training. Weights of the losses are 1, 1/2, 1/4, divided by their sum.
"""

from collections.abc import Sequence
from typing import Any

from monai.networks.nets.dynunet import DynUNet
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from dafne_dante.errors import TrainingError
from dafne_dante.training.losses import BatchShare, dice_cross_entropy

__all__ = ["AuxiliaryHeads", "SupervisedNetwork", "supervised_loss"]

_HEADS = 2


class AuxiliaryHeads(nn.Module):
    """Heads for the network's decoder stages; TrainingError where it has no DynUNet.

    They listen to every forward pass of the network in training mode, until `close`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        found = next((module for module in network.modules() if isinstance(module, DynUNet)), None)
        if found is None:
            raise TrainingError("expected a DynUNet for deep supervision, found another network; train without it")
        stages = list(found.upsamples)[:-1][::-1][:_HEADS]
        kind = nn.Conv2d if found.spatial_dims == 2 else nn.Conv3d
        parameter = next(network.parameters())
        self.heads = nn.ModuleList(
            kind(found.filters[level], found.out_channels, 1).to(parameter.device)
            for level in range(1, 1 + len(stages))
        )
        self._seen: list[Tensor | None] = [None] * len(stages)
        self._handles: list[RemovableHandle] = [
            stage.register_forward_hook(self._listener(index)) for index, stage in enumerate(stages)
        ]

    def outputs(self) -> list[Tensor]:
        """Logits (B, classes, *smaller) of the heads for the network's last forward pass, the finest first."""
        features = [one for one in self._seen if one is not None]
        assert len(features) == len(self.heads)  # the network has just run in training mode
        self._seen = [None] * len(self._seen)
        return [head(one) for head, one in zip(self.heads, features, strict=True)]

    def close(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()

    def _listener(self, index: int) -> Any:
        def listen(stage: nn.Module, _inputs: object, output: Tensor) -> None:
            if stage.training:
                self._seen[index] = output

        return listen


class SupervisedNetwork(nn.Module):
    """A network and its heads, if it has any, as the one module that a step calls; neither is copied."""

    def __init__(self, network: nn.Module, heads: AuxiliaryHeads | None) -> None:
        super().__init__()
        self.network = network
        self.heads = heads

    def forward(self, image: Tensor) -> list[Tensor]:
        """All outputs (B, classes, *size) for an image (B, C, *patch): the network's, then the heads', finest first."""
        outputs = [self.network(image)]
        return outputs + self.heads.outputs() if self.heads is not None else outputs


def supervised_loss(
    outputs: Sequence[Tensor], target: Tensor, known: Tensor, share: BatchShare | None = None
) -> Tensor:
    """The weighted loss of outputs (B, classes, *size), the first at the target's own size; a scalar.

    `share` as for `dice_cross_entropy`.
    """
    weights = [0.5**level for level in range(len(outputs))]
    total = weights[0] * dice_cross_entropy(outputs[0], target, known, share)
    for weight, output in zip(weights[1:], outputs[1:], strict=True):
        coarse_target, coarse_known = (_coarser(volume, output) for volume in (target, known))
        total = total + weight * dice_cross_entropy(output, coarse_target, coarse_known > 0, share)
    return total / sum(weights)


def _coarser(volume: Tensor, like: Tensor) -> Tensor:
    """Nearest values of (B, *patch) at the resolution of (B, classes, *smaller), integer."""
    size = list(like.shape[2:])
    return functional.interpolate(volume[:, None].float(), size, mode="nearest-exact")[:, 0].long()
