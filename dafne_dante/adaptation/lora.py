"""LoRA for any convolution, as a re-parametrisation of its weight.

Terms: the base weight W0 is what the layer had when LoRA was attached; its update s * A B and the shapes of A and B
are those of `low_rank`; the merged weight is W0 + s * A B; an *original name* is a parameter's name in the network
without LoRA.

Invariants
- The layer's own operation runs once a forward pass, on the merged weight: stride, dilation, groups, padding mode
  and output padding are therefore right by construction, and two convolutions a layer (1.7 times the time) are not
  needed.
- W0 is frozen and not written to before `fold_lora`. Nothing merges by itself, in `eval()` neither.
- The merged weight is computed in the weight's own precision, also under autocast: training sees what is saved.
- What has no factors smaller than its weight, and the layers that the caller names, train densely; so do norm
  affines, activation slopes and biases. Everything else is frozen.
- Dropout leaves out ranks, in training only, and makes the others stronger; the factors that are taken are whole ones.
- No state is kept beside the network: a deep copy, or `load_state_dict` into a network with LoRA of the same form
  and rank, is the whole of it.
"""

import fnmatch
from collections.abc import Collection, Iterator
from math import isfinite, prod

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dafne_dante.adaptation.first_factors import first_factors
from dafne_dante.adaptation.layers import KINDS, adaptable_layers, join_name, kind_of, owner_of
from dafne_dante.adaptation.low_rank import Form, LowRank, factor_shapes, rebuild
from dafne_dante.errors import TrainingError

__all__ = [
    "CONVOLUTION_FORMS",
    "LowRankUpdate",
    "attach_lora",
    "fold_lora",
    "lora_factors",
    "lora_parameters",
    "plain_weights",
    "rank_that_pays",
]

CONVOLUTION_FORMS: tuple[Form, ...] = ("lora-channel", "lora-shared")
_WEIGHT = "weight"


class LowRankUpdate(nn.Module):
    """The parametrisation W0 -> W0 + s * A B; shapes of `a` and `b` by form as in `low_rank`."""

    def __init__(self, start: LowRank, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.form: Form = start.form
        self.scale = start.scale
        self.a = nn.Parameter(start.a)
        self.b = nn.Parameter(start.b)

    @property
    def low_rank(self) -> LowRank:
        """The live factors; gradients flow into them."""
        return LowRank(self.form, self.a, self.b, self.scale)

    def forward(self, weight: Tensor) -> Tensor:
        """Merged weight (O, I, *kernel) for the base weight (O, I, *kernel)."""
        # Autocast would round A B to bfloat16, and what is trained would not be what is saved.
        with torch.autocast(weight.device.type, enabled=False):
            return weight + rebuild(self._thinned(), tuple(weight.shape))

    def _thinned(self) -> LowRank:
        if not (self.training and self.dropout):
            return self.low_rank
        kept = (torch.rand(self.a.shape[-1], device=self.a.device) >= self.dropout).to(self.a.dtype)
        return LowRank(self.form, self.a * (kept / (1 - self.dropout)), self.b, self.scale)


def attach_lora(
    network: nn.Module,
    *,
    rank: int = 8,
    form: Form = "lora-shared",
    scale: float = 2.0,
    dropout: float = 0.0,
    kinds: Collection[str] = KINDS,
    layers: Collection[str] = ("*",),
    dense_layers: Collection[str] = (),
) -> None:
    """Give the convolutions and linear layers of `network` a low-rank update, and freeze what must not move.

    Args:
        network: changed in place; its output stays the same until a factor is trained.
        rank: r, at most; capped by each layer.
        form: of convolutions; linear layers take `lora-linear`.
        scale: s, the same at every rank, so that a learning rate carries over (LoRA-C, arXiv 2410.16954).
        dropout: share of the ranks, from 0 to below 1, that a step of training leaves out (LyCORIS, arXiv 2309.14859).
        kinds: which of KINDS are adapted.
        layers: patterns of names, as `fnmatch` has them, of those that are adapted; other weights are frozen.
        dense_layers: names of layers whose weight trains densely, usually the output head (`output_head`).

    Raises:
        TrainingError: an option is out of range, a layer is unknown, already parametrised or not finite, or there is
            no layer at all. The network is then as it was.
    """
    found = adaptable_layers(network)
    _check_options(found, dense_layers, rank=rank, form=form, scale=scale, dropout=dropout)
    chosen = _chosen(found, kinds, layers, dense_layers)
    starts = {
        name: None if name in dense_layers else _start(layer, rank=rank, form=form, scale=scale)
        for name, layer in chosen.items()
    }
    _freeze_all_but_vectors(network)
    for name, start in starts.items():
        if start is None:
            _weight_of(chosen[name]).requires_grad_(True)
        else:
            parametrize.register_parametrization(chosen[name], _WEIGHT, LowRankUpdate(start, dropout))


def rank_that_pays(form: Form, weight_shape: tuple[int, ...], rank: int) -> int | None:
    """The rank, lowered until A and B together are smaller than the weight (O, I, *kernel); None where none is."""
    of_one = sum(prod(shape) for shape in factor_shapes(form, weight_shape, 1))
    smaller = (prod(weight_shape) - 1) // of_one
    return min(rank, weight_shape[0], prod(weight_shape[1:]), smaller) or None


def lora_factors(network: nn.Module) -> dict[str, LowRank]:
    """Original weight name to a copy of its factors on the CPU; empty for a network without LoRA."""
    return {
        join_name(name, _WEIGHT): LowRank(update.form, _copy(update.a), _copy(update.b), update.scale)
        for name, _, update in _adapted(network)
    }


def lora_parameters(network: nn.Module) -> tuple[tuple[nn.Parameter, ...], tuple[nn.Parameter, ...]]:
    """All A's and all B's, in the order of the layers."""
    updates = [update for _, _, update in _adapted(network)]
    return tuple(update.a for update in updates), tuple(update.b for update in updates)


def plain_weights(network: nn.Module) -> dict[str, Tensor]:
    """The state dict with merged weights under the original names: contiguous copies on the CPU, original order.

    The network is not changed, and need not have LoRA. A tensor that the state dict lists twice is there twice.
    """
    layers = {name: layer for name, layer, _ in _adapted(network, aliases=True)}
    inside = {
        join_name(name, f"parametrizations.{key}"): name
        for name, layer in layers.items()
        for key in layer.get_submodule("parametrizations").state_dict()
    }
    plain: dict[str, Tensor] = {}
    for key, tensor in network.state_dict().items():
        name = inside.get(key, owner_of(key))
        weight_name = join_name(name, _WEIGHT)
        if name in layers and weight_name not in plain:  # before the bias, as in the plain state dict
            plain[weight_name] = _copy(_weight_of(layers[name]))
        if key not in inside:
            plain[key] = _copy(tensor)
    return plain


def fold_lora(network: nn.Module) -> None:
    """Write the merged weights into the network and take LoRA off; names and their order are then the original ones.

    The weight is the same Parameter as before LoRA was attached, still frozen. Nothing happens without LoRA.
    """
    for _, layer, _ in list(_adapted(network)):
        _take_off(layer)


def _check_options(
    layers: dict[str, nn.Module], dense_layers: Collection[str], *, rank: int, form: str, scale: float, dropout: float
) -> None:
    if rank < 1 or not (isfinite(scale) and scale > 0):
        raise TrainingError(f"expected a rank from 1 and a scale above 0, found {rank} and {scale}")
    if not 0 <= dropout < 1:
        raise TrainingError(f"expected a dropout from 0 to below 1, found {dropout}")
    if form not in CONVOLUTION_FORMS:
        raise TrainingError(f"expected a form for convolutions from {', '.join(CONVOLUTION_FORMS)}, found {form}")
    if not layers:
        raise TrainingError("expected a network with a convolution or a linear layer, found none; use another method")
    if unknown := sorted(set(dense_layers) - layers.keys()):
        raise TrainingError(f"expected dense layers of the network, found {', '.join(unknown)}")
    if taken := [name for name, layer in layers.items() if parametrize.is_parametrized(layer)]:
        raise TrainingError(f"expected plain weights, found {len(taken)} parametrised layers; fold them first")


def _chosen(
    found: dict[str, nn.Module], kinds: Collection[str], patterns: Collection[str], dense_layers: Collection[str]
) -> dict[str, nn.Module]:
    """The layers that move: those of the kinds whose names match, and the dense ones."""
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise TrainingError(f"expected kinds of layers from {', '.join(KINDS)}, found {', '.join(unknown)}")
    matching = {name for pattern in patterns for name in fnmatch.filter(found, pattern)}
    adapted = {name for name in matching if kind_of(found[name]) in kinds}
    if not adapted:
        raise TrainingError(f"expected layers like {', '.join(patterns)} of the kinds asked for, found none")
    return {name: layer for name, layer in found.items() if name in adapted or name in dense_layers}


def _start(layer: nn.Module, *, rank: int, form: Form, scale: float) -> LowRank | None:
    """The factors that one layer starts from; None where they do not pay."""
    weight = _weight_of(layer)
    layer_form: Form = "lora-linear" if isinstance(layer, nn.Linear) else form
    layer_rank = rank_that_pays(layer_form, tuple(weight.shape), rank)
    return None if layer_rank is None else first_factors(weight, form=layer_form, rank=layer_rank, scale=scale)


def _freeze_all_but_vectors(network: nn.Module) -> None:
    """Leave vectors (norm affines, slopes, biases) trainable and freeze the rest, with no stale gradient left."""
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.dim() <= 1)
        parameter.grad = None


def _adapted(network: nn.Module, *, aliases: bool = False) -> Iterator[tuple[str, nn.Module, LowRankUpdate]]:
    """Name, layer and update of every layer with LoRA."""
    for name, layer in adaptable_layers(network, aliases=aliases).items():
        if parametrize.is_parametrized(layer, _WEIGHT):
            update = layer.get_submodule(f"parametrizations.{_WEIGHT}.0")
            if isinstance(update, LowRankUpdate):
                yield name, layer, update


def _take_off(layer: nn.Module) -> None:
    """Merge one layer and make it plain again.

    `parametrize.remove_parametrizations` is not used: it deletes the `weight` property from a class that deep copies
    share, and so breaks every copy of the network.
    """
    with torch.no_grad():
        merged = _weight_of(layer)
        base = layer.get_parameter(f"parametrizations.{_WEIGHT}.original")
        base.copy_(merged)
    layer.__class__ = parametrize.type_before_parametrizations(layer)
    del layer.parametrizations
    others = list(layer.named_parameters(recurse=False))
    layer.register_parameter(_WEIGHT, base)
    for name, parameter in others:  # the weight comes first again
        delattr(layer, name)
        layer.register_parameter(name, parameter)


def _weight_of(layer: nn.Module) -> Tensor:
    """The layer's weight as its forward pass sees it."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
