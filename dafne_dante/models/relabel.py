"""The same network for another set of labels: what it knows of labels that stay, stays.

Terms: a *class axis* of a weight has one entry for the background and one for each label. A U-Net's last block has
several such weights, a DynUNet's head has two.

Invariants: entries of labels that stay, and of the background, are the old ones bit for bit, wherever the label now
stands; entries of new labels are drawn as those of a new network; every other weight is as it was. Another set of
labels is another family: the model_id is a new one, since an update of the one fits no copy of the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import uuid4

import torch
from torch import Tensor

from dafne_dante.errors import IncompatibleModelError
from dafne_dante.models.build import build_network, build_on_meta
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.stock_functions import stock_metadata, stock_sources

__all__ = ["relabelled"]


def relabelled(model: GlobalModel, labels: Sequence[str], *, seed: int = 0) -> GlobalModel:
    """The model for `labels`, in their order; weights are copies.

    Raises:
        IncompatibleModelError: no label, or one that is named twice.
    """
    if not labels or len(set(labels)) != len(labels):
        raise IncompatibleModelError(f"expected different labels, at least one, found {', '.join(labels) or 'none'}")
    plan = replace(model.plan, labels=tuple(labels))
    generator_state = torch.get_rng_state()
    try:
        torch.manual_seed(seed)
        fresh = build_network(plan).state_dict()
    finally:
        torch.set_rng_state(generator_state)
    axes = _class_axes(plan)
    kept = [(0, 0)] + [
        (new, 1 + model.plan.labels.index(label)) for new, label in enumerate(labels, 1) if label in model.plan.labels
    ]
    weights = {
        name: _remapped(model.weights[name], tensor, axes[name], kept) if name in axes else model.weights[name].clone()
        for name, tensor in fresh.items()
    }
    return replace(
        model,
        model_id=uuid4(),
        plan=plan,
        weights=weights,
        metadata=stock_metadata(plan),
        sources=stock_sources(plan),
    )


def _class_axes(plan: ModelPlan) -> Mapping[str, tuple[int, ...]]:
    """Weight name to its class axes, found by building the network with one label more."""
    more = replace(plan, labels=(*plan.labels, "\0"))
    here, there = (
        {name: tuple(tensor.shape) for name, tensor in build_on_meta(one).state_dict().items()} for one in (plan, more)
    )
    return {
        name: tuple(axis for axis, (size, other) in enumerate(zip(shape, there[name], strict=True)) if size != other)
        for name, shape in here.items()
        if shape != there[name]
    }


def _remapped(old: Tensor, fresh: Tensor, axes: tuple[int, ...], kept: Sequence[tuple[int, int]]) -> Tensor:
    """`fresh` with the entries of `old` wherever every class axis is at a label that stays."""
    to, source = (torch.tensor(indices) for indices in zip(*kept, strict=True))
    entries = old
    for axis in axes:
        entries = entries.index_select(axis, source)
    box: list[slice | Tensor] = [slice(None)] * fresh.dim()
    for position, axis in enumerate(axes):
        box[axis] = to.reshape([-1 if index == position else 1 for index in range(len(axes))])
    result = fresh.detach().clone()
    if len(axes) > 1 and axes != tuple(range(axes[0], axes[0] + len(axes))):
        raise IncompatibleModelError("expected the class axes of a weight side by side, found others")
    result[tuple(box)] = entries
    return result.contiguous()
