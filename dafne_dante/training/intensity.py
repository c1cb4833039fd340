"""Intensity changes that MRI scanners make, drawn apart from their application so that both can be tested.

Terms: a draw holds one value a sample: gain and shift act on the z-scored intensities, gamma on their rank between
the sample's own minimum and maximum, noise is the standard deviation of added Gaussian noise, whose grain grows from
the draw's seed. *Remapping* gives tissues other brightnesses altogether, as another sequence does (the idea of random
contrasts is SynthSeg's, arXiv 2107.09559): a line through random knots over the sample's range, scaled to mean 0 and
deviation 1.

Invariants: strength 0 changes nothing; one draw gives one result on one kind of device; everything runs on the device
of the batch, which no step has to wait for.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["IntensityDraw", "apply_intensity", "draw_intensity"]

_SEEDS = 1 << 31
_KNOTS = 5


@dataclass(frozen=True, eq=False)
class IntensityDraw:
    """One value for each of B samples, shape (B,), float32, and one seed for the grain of all of them.

    Where the B samples are a part of a larger batch, `before` of its samples precede them and it has `whole`; 0 where
    it has B. `knots` (B, 5) are the brightnesses that a sample is remapped to; `remapped` (B,), bool, which ones are.
    """

    gain: Tensor
    shift: Tensor
    gamma: Tensor
    noise: Tensor
    seed: int
    before: int = 0
    whole: int = 0
    knots: Tensor | None = None
    remapped: Tensor | None = None

    def part(self, first: int, end: int) -> "IntensityDraw":
        """The draw for the samples from `first` to before `end`, as they are changed in the whole batch."""
        gain, shift, gamma, noise = (value[first:end] for value in (self.gain, self.shift, self.gamma, self.noise))
        knots, remapped = (None if value is None else value[first:end] for value in (self.knots, self.remapped))
        whole = self.whole or len(self.gain)
        return IntensityDraw(gain, shift, gamma, noise, self.seed, self.before + first, whole, knots, remapped)


def draw_intensity(
    samples: int, strength: float, generator: torch.Generator, *, remapped: float = 0.0
) -> IntensityDraw:
    """Draw changes for a batch: at strength 1 gain 0.75-1.25, shift +-0.2, gamma 0.7-1.4, noise 0-0.15.

    `remapped` is the share of samples that are remapped.
    """
    uniform = torch.rand(4, samples, generator=generator)
    centred = 2 * uniform - 1
    draw = IntensityDraw(
        gain=1 + 0.25 * strength * centred[0],
        shift=0.2 * strength * centred[1],
        gamma=torch.exp(0.35 * strength * centred[2]),
        noise=0.15 * strength * uniform[3],
        seed=int(torch.randint(_SEEDS, (), generator=generator)),
    )
    if remapped == 0:
        return draw
    chosen = torch.rand(samples, generator=generator) < remapped
    return replace(draw, knots=torch.rand(samples, _KNOTS, generator=generator), remapped=chosen)


def apply_intensity(image: Tensor, draw: IntensityDraw) -> Tensor:
    """The changed image, same shape (B, C, *patch) and device; voxels that are exactly 0 (no tissue) stay 0."""
    if draw.knots is not None and draw.remapped is not None and bool(draw.remapped.any()):
        image = _remapped(image, draw.knots, draw.remapped)
    shape = (image.shape[0],) + (1,) * (image.dim() - 1)
    gain, shift, gamma, noise = (
        value.to(image.device, non_blocking=True).reshape(shape)
        for value in (draw.gain, draw.shift, draw.gamma, draw.noise)
    )
    axes = tuple(range(1, image.dim()))
    low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    extent = (high - low).clamp(min=1e-6)
    changed = ((image - low) / extent).pow(gamma) * extent + low
    generator = torch.Generator(image.device).manual_seed(draw.seed)
    grain = torch.randn((draw.whole or len(image), *image.shape[1:]), generator=generator, device=image.device)
    grain = grain[draw.before : draw.before + len(image)]
    changed = changed * gain + shift + grain * noise
    return torch.where(image == 0, image, changed)


def _remapped(image: Tensor, knots: Tensor, chosen: Tensor) -> Tensor:
    """The image, with the tissue of the chosen samples along the line through their knots."""
    knots, chosen = (value.to(image.device, non_blocking=True) for value in (knots, chosen))
    flat = image.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    place = (flat - low) / (high - low).clamp(min=1e-6) * (_KNOTS - 1)
    left = place.floor().clamp(0, _KNOTS - 2).long()
    begin, end = knots.gather(1, left), knots.gather(1, left + 1)
    bright = begin + (place - left) * (end - begin)
    tissue = flat != 0
    count = tissue.sum(1, keepdim=True).clamp(min=1)
    mean = (bright * tissue).sum(1, keepdim=True) / count
    deviation = (((bright - mean) * tissue).square().sum(1, keepdim=True) / count).sqrt().clamp(min=1e-3)
    changed = torch.where(tissue & chosen[:, None], (bright - mean) / deviation, flat)
    return changed.reshape(image.shape)
