"""What share of a training step the stages that move cost: counted in multiplications, so the same on every machine.

Terms: a stage's *work* is the multiplications of its convolutions and linear layers in one forward pass; backward,
a stage costs as much again where a gradient only passes through, and twice as much where it moves.

Norms, activations and the optimiser are left out: with them half frozen measures a little above what is told here
(benchmarks/step_cost.py).
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from dafne_dante.adaptation.layers import adaptable_layers
from dafne_dante.adaptation.stages import Stage, module_stages
from dafne_dante.models.predict import evaluating

__all__ = ["live_share", "live_share_now", "stage_work", "words_for_live"]


def stage_work(network: nn.Module, example: Tensor, stages: Sequence[Stage]) -> tuple[float, ...]:
    """Multiplications of each stage for `example` (B, C, *patch)."""
    counted: dict[str, float] = {}

    def count(name: str) -> Any:
        def listen(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # A transposed convolution multiplies once for every voxel that comes in, any other for every one going out.
            transposed = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
            voxels = (inputs[0] if transposed else output).numel()
            channels = (inputs[0] if transposed else output).shape[-1 if isinstance(layer, nn.Linear) else 1]
            weight: Tensor = layer.weight  # type: ignore[assignment]
            counted[name] = counted.get(name, 0.0) + voxels / channels * prod(weight.shape)

        return listen

    layers = adaptable_layers(network)
    handles = [layer.register_forward_hook(count(name)) for name, layer in layers.items()]
    try:
        with evaluating(network), torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(sum(counted.get(name, 0.0) for name in stage.module_names) for stage in stages)


def live_share(work: Sequence[float], moving: Sequence[bool]) -> float:
    """Work of a step in which only some stages move, over that of one in which all do; 1 where nothing is counted.

    Stages are in the order of the data: before the first that moves there is no backward pass.
    """
    whole = 3 * sum(work)
    if not whole:
        return 1.0
    first = next((index for index, moves in enumerate(moving) if moves), len(moving))
    backward = sum((2 if moves else 1) * cost for cost, moves in list(zip(work, moving, strict=True))[first:])
    return (sum(work) + backward) / whole


def live_share_now(network: nn.Module, example: Tensor) -> float:
    """The same of what may move now, module by module, where a weight that stays costs no gradient of its own.

    `example` is (B, C, *patch); 1 where nothing is counted.
    """
    parameters, found = dict(network.named_parameters()), module_stages(network, example)
    work = stage_work(network, example, found)
    moving = [[parameters[name] for name in one.parameter_names if parameters[name].requires_grad] for one in found]
    first = next((index for index, own in enumerate(moving) if own), len(moving))
    whole = 3 * sum(work)
    backward = sum(
        (1 + any(parameter.dim() > 1 for parameter in own)) * cost
        for cost, own in list(zip(work, moving, strict=True))[first:]
    )
    return (sum(work) + backward) / whole if whole else 1.0


def words_for_live(live: int, parameters: int, work: float) -> str:
    """How many parameters may move of how many, and which share of a full step's work that is."""
    return f"{live:,} of {parameters:,} parameters ({live / parameters:.1%}), {work:.0%} of a step's work"
