"""The mean of one weight's updates over the contributions of one group.

Rules
- A site weighs sqrt(its largest number of cases), shared by its updates, so that sending often counts no more; and no
  site weighs more than all other sites together.
- From three sites on, an update longer than the (lower) median over sites is scaled down to it.
- Where five sites or more trained the weight, the mean is coordinate-wise trimmed (Yin et al., arXiv 1803.01498): of
  each coordinate's values, one a site, a fifth is cut at each end, and the rest averaged by weight. Or, by the rule
  "median", it is their weighted median (`weighted_median`).

Invariants: pure; coefficients of a mean sum to 1 before clipping; one dense update is in memory at a time, or a
bounded block of the rows of all sites.
"""

from collections.abc import Mapping, Sequence
from math import hypot, sqrt
from statistics import median_low

import numpy as np
import torch
from torch import Tensor

from dafne_dante.delta.difference import factor_norm
from dafne_dante.federation.contribution import Contribution
from dafne_dante.federation.spilled import SpilledUpdates
from dafne_dante.federation.weight_rows import dense_rows, row_blocks
from dafne_dante.federation.weighted_median import Rule, robust_mean

__all__ = ["clip_factors", "contribution_weights", "group_mean"]

_SITES_TO_CLIP = 3
_SITES_TO_TRIM = 5
_TRIMMED_SHARE = 0.2
_CACHED_NUMBERS = 1 << 18


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
    name: str,
    shape: tuple[int, ...],
    contributions: Sequence[Contribution],
    clips: Mapping[str, float],
    rule: Rule = "trimmed",
) -> Tensor:
    """The mean update of weight `name`, dense in `shape` (O, I, *kernel), float32.

    Args:
        contributions: at least one, all of which trained the weight.
        clips: update_id to factor, as from `clip_factors` of the whole group.
        rule: what stands for the numbers of five sites or more.
    """
    weights = contribution_weights(contributions)
    total = sum(weights)
    factors = [clips[one.update_id] for one in contributions]
    if len(_by_site(contributions)) >= _SITES_TO_TRIM:
        return _trimmed(name, shape, contributions, weights, factors, rule=rule)
    shares = [weight / total * factor for weight, factor in zip(weights, factors, strict=True)]
    mean = torch.zeros(shape, dtype=torch.float32)
    buffer = torch.empty(0)
    for begin, end in row_blocks(shape, 1, _CACHED_NUMBERS):
        target = mean[begin:end] if shape else mean
        # The first block is the longest; its memory serves them all.
        buffer = buffer if buffer.numel() else torch.empty(target.numel())
        for one, share in zip(contributions, shares, strict=True):
            rows = dense_rows(one.updates, name, shape, (begin, end), buffer[: target.numel()])
            target.add_(rows, alpha=share)
    return mean


def _trimmed(
    name: str,
    shape: tuple[int, ...],
    contributions: Sequence[Contribution],
    weights: Sequence[float],
    factors: Sequence[float],
    *,
    rule: Rule,
) -> Tensor:
    """The trimmed mean, or the median, block by block of rows."""
    site_weights: dict[str, float] = {}
    for one, weight in zip(contributions, weights, strict=True):
        site_weights[one.public_key] = site_weights.get(one.public_key, 0.0) + weight
    sent = [
        (one, weight / site_weights[one.public_key] * factor)
        for one, weight, factor in zip(contributions, weights, factors, strict=True)
    ]
    rows_of_sites = np.fromiter(site_weights.values(), dtype=np.float32)
    cut = max(1, int(_TRIMMED_SHARE * len(site_weights)))
    mean = torch.empty(shape, dtype=torch.float32)
    buffer = torch.empty(0)
    for begin, end in row_blocks(shape, len(site_weights)):
        target = mean[begin:end] if shape else mean
        buffer = buffer if buffer.numel() else torch.empty(len(site_weights) + 1, target.numel())
        values = buffer[:, : target.numel()]
        _fill_sites(values, name, shape, (begin, end), sent)
        target.copy_(torch.from_numpy(robust_mean(values[:-1].numpy(), rows_of_sites, cut, rule)).reshape(target.shape))
    return mean


def _fill_sites(
    values: Tensor,
    name: str,
    shape: tuple[int, ...],
    rows: tuple[int, int],
    sent: Sequence[tuple[Contribution, float]],
) -> None:
    """Each site's sum of shares of its updates, into a row of `values` (sites + 1, M); the last one is for work."""
    targets: dict[str, Tensor] = {}
    for one, share in sent:
        earlier = targets.get(one.public_key)
        if earlier is not None:
            earlier.add_(dense_rows(one.updates, name, shape, rows, values[-1]).view(-1), alpha=share)
            continue
        target = targets[one.public_key] = values[len(targets)]
        dense_rows(one.updates, name, shape, rows, target)
        if share != 1:
            target.mul_(share)


def _length(contribution: Contribution) -> float:
    updates = contribution.updates
    if isinstance(updates, SpilledUpdates):
        return updates.length
    return hypot(*(factor_norm(update.value) for update in updates.values()))


def _by_site(contributions: Sequence[Contribution]) -> dict[str, list[Contribution]]:
    by_site: dict[str, list[Contribution]] = {}
    for one in contributions:
        by_site.setdefault(one.public_key, []).append(one)
    return by_site
