"""Clipping an update to a length and adding noise to it before it leaves: the Gaussian mechanism on one update.

Terms: the *clip norm* C is an L2 length over all weights that move; the *multiplier* m makes the standard deviation of
the noise m * C in every number that moves.

What this is: of two sets of cases, whatever they are, the updates that leave differ in length by at most 2 C, and the
noise is that of the Gaussian mechanism (Dwork and Roth 2014, appendix A) at the level of a whole update; for one update
and delta = 1e-5, epsilon is about 2 sqrt(2 ln(1.25e5)) / m = 9.7 / m, valid for epsilon up to 1, so from m = 9.7 on;
every further update adds to it. What it is not: a guarantee for which weights move, the Dice, the labels or the number
of cases in the manifest, or against an attacker who knows the state of this machine's random numbers; nor a guarantee
that the update is of use. Less noise, or only clipping, makes an attack on a single case harder and guarantees nothing.

Invariants: what is clipped keeps its form and direction; what gets noise is dense, since noise in the factors of a
product is none in the product; noise is drawn anew each time from the system's entropy.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

import torch

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.delta.difference import WeightUpdate, dense_value, update_norm
from dafne_dante.errors import SettingsError
from dafne_dante.types import Weights

__all__ = ["Noise", "clipped_and_noised"]


@dataclass(frozen=True)
class Noise:
    """How an update is clipped and noised.

    Attributes:
        clip_norm: the longest that it may be; above 0.
        multiplier: standard deviation of the noise as a multiple of the clip norm; 0 for none.

    Raises:
        SettingsError: a value is out of its range.
    """

    clip_norm: float
    multiplier: float = 0.0

    def __post_init__(self) -> None:
        if not (isfinite(self.clip_norm) and self.clip_norm > 0 and isfinite(self.multiplier) and self.multiplier >= 0):
            raise SettingsError("expected a clip norm above 0 and a noise multiplier of 0 or more, found others")


def clipped_and_noised(
    updates: Sequence[WeightUpdate], base: Weights, noise: Noise | None, *, seed: int | None = None
) -> tuple[WeightUpdate, ...]:
    """The updates as they may leave; unchanged where `noise` is None.

    `seed` is for tests; the system's entropy when left out.
    """
    if noise is None:
        return tuple(updates)
    length = update_norm(updates, base)
    share = min(1.0, noise.clip_norm / length) if length else 1.0
    clipped = tuple(_scaled(update, share) for update in updates)
    if noise.multiplier == 0:
        return clipped
    generator = torch.Generator().manual_seed(secrets.randbits(63) if seed is None else seed)
    deviation = noise.multiplier * noise.clip_norm
    return tuple(_noised(update, tuple(base[update.weight].shape), deviation, generator) for update in clipped)


def _scaled(update: WeightUpdate, share: float) -> WeightUpdate:
    if share == 1:
        return update
    value = update.value
    scaled = replace(value, scale=value.scale * share) if isinstance(value, LowRank) else value * share
    return replace(update, value=scaled)


def _noised(update: WeightUpdate, shape: tuple[int, ...], deviation: float, generator: torch.Generator) -> WeightUpdate:
    dense = dense_value(update, shape).float().cpu()
    return WeightUpdate(update.weight, dense + deviation * torch.randn(shape, generator=generator))
