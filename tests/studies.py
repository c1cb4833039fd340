"""Studies that need no files: what the tests of reading and collecting start from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dafne_dante.annotations.grid import put_on_grid
from dafne_dante.annotations.study import EmptySlices, LabelledImage
from dafne_dante.errors import DanteError

SHAPE = (6, 5, 8)


def block(low, high):
    """A mask that is drawn on the slices from low to high - 1."""
    mask = np.zeros(SHAPE, bool)
    mask[1:4, 1:4, low:high] = True
    return mask


@dataclass(frozen=True, eq=False)
class DrawnStudy:
    """A Study whose image and masks lie in memory, 1 x 1 x 2 mm."""

    name: str
    masks: Mapping[str, np.ndarray]
    brightness: float = 100.0
    annotated: np.ndarray | None = None
    empty_slices: EmptySlices = "background"
    notes: tuple[str, ...] = ()
    fault: DanteError | None = None
    contrasts: int = 1
    files: tuple[Path, ...] = field(default=())

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.masks)

    def read(self, values: Mapping[str, int]) -> LabelledImage:
        if self.fault:
            raise self.fault
        image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) + self.brightness
        grid = put_on_grid(self.name, image, np.diag([1.0, 1, 2, 1]), contrasts=self.contrasts)
        segmentation = np.zeros(SHAPE, np.uint8)
        for name, mask in self.masks.items():
            if name in values:
                segmentation[mask] = values[name]
        return LabelledImage(grid, segmentation, self.annotated, self.notes)
