"""What a coil, a coarser protocol and a softer kernel do to an image, drawn apart from the application.

Terms: a *bias field* is a smooth factor on the signal above a sample's lowest value; *blur* is a Gaussian; *low
resolution* is the image sampled at fewer points, along each axis for itself, and interpolated back.

Invariants: strength 0 changes nothing; only drawn samples are computed; voxels that are exactly 0 (no tissue) stay 0;
everything runs on the device of the image, and the choice of samples is known to the CPU beforehand, so that no step
waits for the device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["ScannerDraw", "apply_scanner", "draw_scanner"]

_BIAS_SHARE, _BLUR_SHARE, _COARSE_SHARE = 0.3, 0.2, 0.25
_BIAS_POINTS = 4
_LARGEST_LOG_BIAS = 0.5
_SIGMA_VOXELS = (0.5, 1.0)
_LARGEST_FACTOR = 2.0
_RADIUS = 2


@dataclass(frozen=True, eq=False)
class ScannerDraw:
    """For each sample that is changed, by its index: field (1, 1, *points), sigma in voxels, factor for each axis."""

    log_bias: dict[int, Tensor]
    sigma: dict[int, float]
    factors: dict[int, tuple[float, ...]]

    def part(self, first: int, end: int) -> "ScannerDraw":
        """The draw for the samples from `first` to before `end`, which are counted from 0 again."""
        own = range(first, end)
        return ScannerDraw(
            {index - first: value for index, value in self.log_bias.items() if index in own},
            {index - first: value for index, value in self.sigma.items() if index in own},
            {index - first: value for index, value in self.factors.items() if index in own},
        )


def draw_scanner(samples: int, axes: int, strength: float, generator: torch.Generator) -> ScannerDraw:
    """Draw for a batch; at strength 1 a bias of up to e^0.5, sigma 0.5-1 voxel, and half the samples along an axis."""
    chance = torch.rand(samples, 3, generator=generator)
    values = torch.rand(samples, 1 + axes, generator=generator)
    fields = 2 * torch.rand(samples, 1, 1, *(_BIAS_POINTS,) * axes, generator=generator) - 1
    low, high = _SIGMA_VOXELS
    draw = ScannerDraw({}, {}, {})
    for index, ((bias, blur, coarse), (softness, *coarseness)) in enumerate(
        zip(chance.tolist(), values.tolist(), strict=True)
    ):
        if strength and bias < _BIAS_SHARE:
            draw.log_bias[index] = _LARGEST_LOG_BIAS * strength * fields[index]
        if strength and blur < _BLUR_SHARE:
            draw.sigma[index] = strength * (low + (high - low) * softness)
        if strength and coarse < _COARSE_SHARE:
            draw.factors[index] = tuple(1 + (_LARGEST_FACTOR - 1) * strength * value for value in coarseness)
    return draw


def apply_scanner(image: Tensor, draw: ScannerDraw) -> Tensor:
    """The changed image, same shape (B, C, *patch), dtype and device."""
    chosen = sorted({*draw.log_bias, *draw.sigma, *draw.factors})
    if not chosen:
        return image
    result = image.clone()
    for index in chosen:
        sample = image[index : index + 1]
        changed = sample
        if index in draw.log_bias:
            changed = _shade(changed, draw.log_bias[index])
        if index in draw.sigma:
            changed = _blur(changed, draw.sigma[index])
        if index in draw.factors:
            changed = _coarsen(changed, draw.factors[index])
        result[index : index + 1] = torch.where(sample == 0, sample, changed)
    return result


def _shade(sample: Tensor, log_bias: Tensor) -> Tensor:
    """The signal is what lies above the lowest value: z-scores have no zero of their own."""
    size = list(sample.shape[2:])
    field = functional.interpolate(
        log_bias.to(sample.device, non_blocking=True), size, mode=_interpolation(size), align_corners=True
    ).exp()
    low = sample.amin()
    return (sample - low) * field + low


def _blur(sample: Tensor, sigma: float) -> Tensor:
    """A Gaussian of five taps along each axis, the edge repeated."""
    taps = torch.exp(-0.5 * (torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64) / sigma) ** 2)
    weights = (taps / taps.sum()).tolist()
    for axis in range(2, sample.dim()):
        size = sample.shape[axis]
        ends = [sample.narrow(axis, 0, 1)] * _RADIUS, [sample.narrow(axis, size - 1, 1)] * _RADIUS
        wide = torch.cat([*ends[0], sample, *ends[1]], dim=axis)
        sample = sum(
            (weight * wide.narrow(axis, shift, size) for shift, weight in enumerate(weights)), start=0 * sample
        )
    return sample


def _coarsen(sample: Tensor, factors: tuple[float, ...]) -> Tensor:
    size = list(sample.shape[2:])
    coarse = [max(1, round(length / factor)) for length, factor in zip(size, factors, strict=True)]
    fewer = functional.interpolate(sample, coarse, mode="nearest-exact")
    return functional.interpolate(fewer, size, mode=_interpolation(size), align_corners=False)


def _interpolation(size: list[int]) -> str:
    return "bilinear" if len(size) == 2 else "trilinear"
