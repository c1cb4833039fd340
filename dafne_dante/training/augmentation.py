"""All changes to a training batch in one place: where things lie, what a scanner does, how bright things are.

Terms: a *strength* is 0 for none and 1 for what training from scratch takes. A *draw* holds all random choices for one
batch; applying one draw to one batch gives one result.

Invariants: order is spatial, scanner, intensity, as signal is formed in a body, recorded by a coil and then scaled;
strength 0 of a part draws nothing from the generator for it, so that adding a part changes no run that is without it;
everything that is large runs on the device of the batch.
"""

from dataclasses import dataclass, replace

import torch

from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.intensity import IntensityDraw, apply_intensity, draw_intensity
from dafne_dante.training.sampling import Batch
from dafne_dante.training.scanner_effects import ScannerDraw, apply_scanner, draw_scanner
from dafne_dante.training.spatial import SpatialDraw, apply_spatial, draw_spatial

__all__ = ["BatchDraw", "Strengths", "apply_changes", "draw_changes"]


@dataclass(frozen=True)
class Strengths:
    """How strongly each part changes a batch.

    Attributes:
        intensity: gain, shift, gamma, noise.
        scanner: bias field, blur, low resolution.
        spatial: rotation and scale.
        mirror: whether patches are mirrored where labels allow it.
        often: of the batches, how many the scanner, spatial and mirror parts change; 0 to 1.
        remapped: of the samples, how many have tissues of other brightnesses altogether (`intensity`); 0 to 1. Needs
            an intensity above 0.
    """

    intensity: float = 0.5
    scanner: float = 0.0
    spatial: float = 0.0
    mirror: bool = False
    often: float = 1.0
    remapped: float = 0.0


@dataclass(frozen=True, eq=False)
class BatchDraw:
    """The choices for one batch; None for a part of strength 0."""

    spatial: SpatialDraw | None
    scanner: ScannerDraw | None
    intensity: IntensityDraw | None

    def part(self, first: int, end: int) -> "BatchDraw":
        """The draw for the samples from `first` to before `end`, which are changed as they are in the whole batch."""
        return BatchDraw(
            self.spatial.part(first, end) if self.spatial else None,
            self.scanner.part(first, end) if self.scanner else None,
            self.intensity.part(first, end) if self.intensity else None,
        )


def draw_changes(
    samples: int,
    plan: ModelPlan,
    strengths: Strengths,
    generator: torch.Generator,
    *,
    mirror_axes: tuple[int, ...] = (),
) -> BatchDraw:
    """Draw for a batch of `samples` patches of the plan; `mirror_axes` are those that may be mirrored."""
    spared = strengths.often < 1 and float(torch.rand((), generator=generator)) >= strengths.often
    moves = (strengths.spatial > 0 or strengths.mirror) and not spared
    scans = strengths.scanner > 0 and not spared
    axes = mirror_axes if strengths.mirror else ()
    return BatchDraw(
        draw_spatial(samples, plan, strengths.spatial, generator, mirror_axes=axes) if moves else None,
        draw_scanner(samples, len(plan.patch), strengths.scanner, generator) if scans else None,
        draw_intensity(samples, strengths.intensity, generator, remapped=strengths.remapped)
        if strengths.intensity > 0
        else None,
    )


def apply_changes(batch: Batch, draw: BatchDraw) -> Batch:
    """The changed batch: same shapes, dtypes and device."""
    if draw.spatial is not None:
        batch = apply_spatial(batch, draw.spatial)
    if draw.scanner is not None:
        batch = replace(batch, image=apply_scanner(batch.image, draw.scanner))
    if draw.intensity is not None:
        batch = replace(batch, image=apply_intensity(batch.image, draw.intensity))
    return batch
