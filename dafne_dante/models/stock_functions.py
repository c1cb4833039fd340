"""The source texts and metadata that make our models run in stock Dafne clients.

Terms: a stock client executes three texts of a `.model` file: one builds the network, one segments an image, one
learns from new masks. It takes the first function that a text defines.

Invariants: each text defines one function at column 0 and imports within it (Dafne's rule for what it serialises);
we never execute them ourselves; the numbers baked into the first come from a checked plan, as Python literals.
"""

import math
from typing import Any

from dafne_dante.models.build import unet_strides
from dafne_dante.models.plan import ModelPlan

__all__ = ["stock_metadata", "stock_sources"]

_INIT = """\
def init_model():
    from dafne_inference.networks import {network}

    return {network}({arguments})
"""

# run_inference recognises the slice axis only where it is shorter than the first one, and otherwise gives transposed
# masks. Zeros behind the image change nothing else: it crops to the non-zero box before anything is computed.
_APPLY = """\
def apply_model(model_object, data):
    import numpy
    from dafne_inference.inference import run_inference

    image = numpy.asarray(data["image"])
    missing = image.shape[2] + 1 - image.shape[0] if image.ndim == 3 else 0
    if missing <= 0:
        return run_inference(model_object, data)
    padded = numpy.pad(image, ((0, missing), (0, 0), (0, 0)))
    masks = run_inference(model_object, {**data, "image": padded})
    return {label: mask[: image.shape[0]] for label, mask in masks.items()}
"""

# The stock trainer gives a 3D U-Net whole volumes as they are, and fails where the strides do not divide them. So the
# network gets zeros behind them, as it does in inference, and gives them back; the loss does not see them.
_INCREMENTAL_LEARN = """\
def incremental_learn(model_object, training_data, training_outputs, batch_size, min_images):
    from dafne_inference.incremental import run_incremental_learning
    from torch.nn.functional import pad

    divisors = {divisors}
    sizes = []

    def fill(network, inputs):
        sizes[:] = inputs[0].shape[2:]
        missing = [-size % divisor for size, divisor in zip(sizes, divisors)]
        return (pad(inputs[0], [width for behind in reversed(missing) for width in (0, behind)]),)

    def cut(network, inputs, outputs):
        return outputs[(..., *[slice(size) for size in sizes])]

    hooks = [model_object.model.register_forward_pre_hook(fill), model_object.model.register_forward_hook(cut)]
    try:
        return run_incremental_learning(model_object, training_data, training_outputs, batch_size, min_images)
    finally:
        for hook in hooks:
            hook.remove()
"""


def stock_sources(plan: ModelPlan) -> dict[str, str]:
    """Function name to source text, for models of this plan."""
    return {
        "init_model_function": _init_source(plan),
        "apply_model_function": _APPLY,
        "incremental_learn_function": _INCREMENTAL_LEARN.format(divisors=_divisors(plan)),
    }


def stock_metadata(plan: ModelPlan) -> dict[str, Any]:
    """The file's metadata beside net_metadata, under the keys that stock clients read."""
    return {
        "train_metadata": {},
        "dependencies": {"dafne_inference": "dafne-monai-inference>=1.0.2"},
        "ewc_data": None,
        "model_name": "dynunet" if plan.architecture == "dynunet" else "unet",
        "model_type": "DynamicTorchModel",
        "dimensionality": str(plan.dimensions),
        "categories": list(plan.labels),
        "variants": [""],
    }


def _init_source(plan: ModelPlan) -> str:
    arguments: dict[str, Any] = {
        "spatial_dims": int(plan.dimensions),
        "in_channels": int(plan.in_channels),
        "out_channels": int(plan.out_channels),
    }
    if plan.architecture == "dynunet":
        arguments["kernels"] = [[int(size) for size in kernel] for kernel in plan.kernels]
        arguments["strides"] = [[int(size) for size in stride] for stride in plan.strides]
    else:
        arguments["start_channel"] = int(plan.first_channels)
        arguments["n_levels"] = int(plan.levels)
        arguments["num_res_units"] = int(plan.residual_units)
        arguments["kernel_size"] = int(plan.kernel)
    network = "DafneDynUnetModel" if plan.architecture == "dynunet" else "DafneUnetModel"
    listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return _INIT.format(network=network, arguments=listed)


def _divisors(plan: ModelPlan) -> list[int]:
    """What the network divides each axis by, in the plan's order."""
    strides = plan.strides if plan.architecture == "dynunet" else unet_strides(plan)
    return [math.prod(int(step) for step in steps) for steps in zip(*strides, strict=True)]
