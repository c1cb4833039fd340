"""The mean of one weight's updates over the contributions of one group.

Rules
- A site weighs sqrt(its largest number of cases), shared by its updates, so that sending often counts no more; and no
  site weighs more than all other sites together.
- From three sites on, an update longer than the (lower) median over sites is scaled down to it.
- Where five sites or more trained the weight, the mean is coordinate-wise trimmed (Yin et al., arXiv 1803.01498): of
  each coordinate's values, one a site, a fifth is cut at each end, and the rest averaged by weight.

Invariants: pure; coefficients of a mean sum to 1 before clipping; one dense update is in memory at a time, or a
bounded piece of those of all sites.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod, sqrt
from statistics import median_low

import torch
from torch import Tensor

from dafne_dante.adaptation.low_rank import LowRank, rebuild
from dafne_dante.delta.difference import WeightUpdate, dense_value, factor_norm
from dafne_dante.federation.contribution import Contribution

__all__ = ["clip_factors", "contribution_weights", "group_mean"]

_SITES_TO_CLIP = 3
_SITES_TO_TRIM = 5
_TRIMMED_SHARE = 0.2
_PIECE_NUMBERS = 1 << 22


def contribution_weights(contributions: Sequence[Contribution]) -> list[float]:
    """The weight of each contribution among these, by the first rule; they need not sum to 1."""
    by_site = _by_site(contributions)
    weights = {site: sqrt(max(own.cases for own in sent)) for site, sent in by_site.items()}
    if len(weights) > 1:
        heaviest = max(weights, key=lambda site: weights[site])
        weights[heaviest] = min(weights[heaviest], sum(weights.values()) - weights[heaviest])
    return [weights[one.public_key] / len(by_site[one.public_key]) for one in contributions]


def clip_factors(contributions: Sequence[Contribution]) -> dict[str, float]:
    """update_id to the factor, at most 1, that brings an update to the median length; 1 for fewer than three sites."""
    by_site = _by_site(contributions)
    if len(by_site) < _SITES_TO_CLIP:
        return {one.update_id: 1.0 for one in contributions}
    lengths = {one.update_id: _length(one) for one in contributions}
    limit = median_low(median_low(lengths[own.update_id] for own in sent) for sent in by_site.values())
    return {update_id: limit / length if length > limit else 1.0 for update_id, length in lengths.items()}


def group_mean(
    name: str, shape: tuple[int, ...], contributions: Sequence[Contribution], clips: Mapping[str, float]
) -> Tensor:
    """The mean update of weight `name`, dense in `shape` (O, I, *kernel), float32.

    Args:
        contributions: at least one, all of which trained the weight.
        clips: update_id to factor, as from `clip_factors` of the whole group.
    """
    weights = contribution_weights(contributions)
    total = sum(weights)
    factors = [clips[one.update_id] for one in contributions]
    if len(_by_site(contributions)) >= _SITES_TO_TRIM:
        return _trimmed(name, shape, contributions, weights, factors)
    mean = torch.zeros(shape, dtype=torch.float32)
    for one, weight, factor in zip(contributions, weights, factors, strict=True):
        mean += dense_value(one.updates[name], shape) * (weight / total * factor)
    return mean


def _trimmed(
    name: str,
    shape: tuple[int, ...],
    contributions: Sequence[Contribution],
    weights: Sequence[float],
    factors: Sequence[float],
) -> Tensor:
    """The trimmed mean, piece by piece along the first axis."""
    sites = list(_by_site(contributions))
    place = {site: index for index, site in enumerate(sites)}
    site_weights = torch.zeros(len(sites))
    for one, weight in zip(contributions, weights, strict=True):
        site_weights[place[one.public_key]] += weight
    mean = torch.empty(shape, dtype=torch.float32)
    for begin, end in _pieces(shape, len(sites)):
        target = mean[begin:end] if shape else mean
        values = torch.zeros(len(sites), target.numel())
        for one, weight, factor in zip(contributions, weights, factors, strict=True):
            site = place[one.public_key]
            share = weight / float(site_weights[site])
            values[site] += _piece(one.updates[name], shape, begin, end).reshape(-1) * (share * factor)
        target.copy_(_trimmed_mean(values, site_weights).reshape(target.shape))
    return mean


def _trimmed_mean(values: Tensor, weights: Tensor) -> Tensor:
    """(M,) weighted mean over the sites (S, M) that are left of each coordinate; weights (S,)."""
    cut = max(1, int(_TRIMMED_SHARE * len(values)))
    ordered, order = values.sort(dim=0, stable=True)
    kept = slice(cut, len(values) - cut)
    kept_weights = weights[order[kept]]
    return (ordered[kept] * kept_weights).sum(dim=0) / kept_weights.sum(dim=0)


def _pieces(shape: tuple[int, ...], sites: int) -> Iterator[tuple[int, int]]:
    """Begin and end of pieces along the first axis, so that a piece of all sites has a bounded number of numbers."""
    rows = shape[0] if shape else 1
    step = max(1, _PIECE_NUMBERS // (sites * prod(shape[1:])))
    for begin in range(0, rows, step):
        yield begin, min(begin + step, rows)


def _piece(update: WeightUpdate, shape: tuple[int, ...], begin: int, end: int) -> Tensor:
    """Rows `begin` to `end` of the dense form, float32; only they are built."""
    value = update.value
    if isinstance(value, LowRank):
        part = LowRank(value.form, value.a[..., begin:end, :].float(), value.b.float(), value.scale)
        return rebuild(part, (end - begin, *shape[1:]))
    return (value[begin:end] if shape else value).float()


def _length(contribution: Contribution) -> float:
    return sqrt(sum(factor_norm(contribution.updates[name].value) ** 2 for name in contribution.updates))


def _by_site(contributions: Sequence[Contribution]) -> dict[str, list[Contribution]]:
    by_site: dict[str, list[Contribution]] = {}
    for one in contributions:
        by_site.setdefault(one.public_key, []).append(one)
    return by_site
