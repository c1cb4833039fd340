"""A running mean of the weights: steadier than the last step's (SCIENCE.md section 8; Polyak and Juditsky 1992).

Invariants: the mean has the names of the network's own tensors, so it can be stored, restored and measured as they
are; it costs one addition a step; integer buffers are taken over, not averaged.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ["AveragedWeights", "named_tensors", "put_tensors"]


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer once, under its first name, detached but not copied."""
    pairs = [*network.named_parameters(), *network.named_buffers()]
    return {name: tensor.detach() for name, tensor in pairs}


def put_tensors(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy values into the network's tensors; names are those of `named_tensors`."""
    for name, tensor in named_tensors(network).items():
        tensor.copy_(tensors[name])


class AveragedWeights:
    """mean <- d mean + (1 - d) weights after each step, with d rising to `decay` while there are few steps."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self.steps = 0
        self.mean = {name: tensor.clone() for name, tensor in named_tensors(network).items()}

    def update(self) -> None:
        """Take the network's weights into the mean."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in named_tensors(self._network).items():
            if tensor.is_floating_point():
                self.mean[name].lerp_(tensor, 1 - decay)
            else:
                self.mean[name].copy_(tensor)

    @contextmanager
    def in_network(self) -> Iterator[None]:
        """Let the network have the mean; afterwards it has its own weights again, bit for bit."""
        own = {name: tensor.clone() for name, tensor in named_tensors(self._network).items()}
        put_tensors(self._network, self.mean)
        try:
            yield
        finally:
            put_tensors(self._network, own)
