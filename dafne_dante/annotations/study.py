"""What is found at a site before and after it is read; every kind of source ends here.

Terms
- A *study* is one image and what somebody drew on it. It is found first, which opens as little as can be, and read
  later, one at a time.
- A *name* of a label is what the source calls it; which label of a model it stands for is decided in `labels`.
- The *annotated* slices are those that somebody labelled. In the others an empty mask means nothing.
- What is *left* is everything that was looked at and not taken, with the reason.

Invariants: the `name` of a study and of what is left, and the names of labels in reasons, are for the screen of the
person who owns the files; they are base names or numbers, never the text of a DICOM element other than a label's
name, and they are never written to a file, a log or the network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from dafne_dante.annotations.grid import ImageOnGrid
from dafne_dante.types import AnnotatedSlices, Segmentation

__all__ = ["EmptySlices", "Found", "LabelledImage", "Left", "Study"]

EmptySlices = Literal["background", "unknown"]
"""What a slice without any mask means: nothing is there, or nobody looked."""


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One study that has been read.

    Attributes:
        grid: the image on its canonical grid.
        segmentation: (X, Y, Z) uint8 on that grid, with the values that the caller asked for.
        annotated: (Z,) bool where the source says which slices were labelled; None where it does not.
        notes: what a person should know of this study, each a sentence: a gap that was found, a duplicate left out.
    """

    grid: ImageOnGrid
    segmentation: Segmentation
    annotated: AnnotatedSlices | None = None
    notes: tuple[str, ...] = ()


class Study(Protocol):
    """One labelled study that has been found."""

    @property
    def name(self) -> str:
        """What the owner's messages call it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that it has, as the source spells them; no name twice."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that `read` opens."""

    @property
    def empty_slices(self) -> EmptySlices:
        """What an empty slice means in sources of this kind, unless the source says which slices were labelled."""

    def read(self, values: Mapping[str, int]) -> LabelledImage:
        """Read it, with `values[name]` (1 to 255) where the label of that name is drawn.

        Names that are not in `values` are not drawn. Two names may have one value. Where two labels lie over each
        other, the later one in `labels` counts; sources without an order of their own sort by name, as stock Dafne.

        Raises:
            AnnotationError: the branch says what is wrong with which file.
        """


@dataclass(frozen=True)
class Left:
    """Something that was looked at and not taken; `dataset` as in Study."""

    name: str
    reason: str
    dataset: str = ""


@dataclass(frozen=True)
class Found:
    """What a search came to; studies in a stable order."""

    studies: tuple[Study, ...] = ()
    left: tuple[Left, ...] = ()

    def __add__(self, other: "Found") -> "Found":
        return Found(self.studies + other.studies, self.left + other.left)
