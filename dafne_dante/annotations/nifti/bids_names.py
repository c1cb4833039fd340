"""What the name of a NIfTI file in a BIDS dataset says; nothing is opened.

Terms (BIDS 1.10, "Filename structure")
- A name is `<key>-<value>_..._<suffix>.nii.gz`; the pairs are its *entities*, the suffix says what kind of data it is.
- The *acquisition* is what was scanned: the entities that a derivative takes over from its source (subject, session,
  run, ...), without those that say what was made of it.
- The *space* is the coordinate system and resolution that a file was brought to; none, or `orig`, is the scanner's.

Invariants: names are untrusted, and only compared; keys, values and suffixes have letters, digits and `+` only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dafne_dante.annotations.nifti.volume import ENDINGS

__all__ = ["BidsFile", "entities_of", "parsed_name"]

_DRAWN = ("dseg", "mask")
# What is made of an image and can be mistaken for one; `seg`, `roi` and the like are no suffixes of BIDS, but common.
_NO_IMAGES = (*_DRAWN, "probseg", "seg", "roi", "label", "labels", "lesion", "defacemask", "xfm", "warp", "tensor")
_OF_DERIVATIVES = frozenset(("label", "desc", "seg", "atlas", "hemi", "den", "scale", "space", "res"))
_OWN_SPACES = ("orig", "")


@dataclass(frozen=True)
class BidsFile:
    """One NIfTI file.

    Attributes:
        path: where it is.
        root: the folder of its dataset.
        is_raw: whether that dataset is no derivative.
        entities: key to value; `sub` is among them.
        suffix: `T1w`, `dseg`, `mask`, ...
    """

    path: Path
    root: Path
    is_raw: bool
    entities: Mapping[str, str]
    suffix: str

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return self.path.name[: -len(_ending(self.path.name))]

    @property
    def place(self) -> str:
        """Its path below its dataset, with slashes."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def is_drawn(self) -> bool:
        """Whether it is a segmentation that we read."""
        return self.suffix in _DRAWN

    @property
    def is_image(self) -> bool:
        """Whether somebody may have drawn on it."""
        return self.suffix not in _NO_IMAGES

    @cached_property
    def acquisition(self) -> Mapping[str, str]:
        """The entities that say what was scanned."""
        return {key: value for key, value in self.entities.items() if key not in _OF_DERIVATIVES}

    @cached_property
    def space(self) -> tuple[str, str]:
        """Coordinate system and resolution; empty where they are the scanner's."""
        space = self.entities.get("space", "")
        return "" if space in _OWN_SPACES else space, self.entities.get("res", "")


def entities_of(stem: str) -> tuple[dict[str, str], str] | None:
    """Entities and suffix of a name without its ending; None when it is no BIDS name."""
    *pairs, suffix = stem.split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        key, dash, value = pair.partition("-")
        if not dash or not key.isalnum() or not value.replace("+", "").isalnum() or key in entities:
            return None
        entities[key] = value
    return (entities, suffix) if suffix.isalnum() else None


def parsed_name(name: str) -> tuple[dict[str, str], str] | None:
    """Entities and suffix of a NIfTI file of a subject, by its whole name; None when it is no such name."""
    ending = _ending(name)
    parsed = entities_of(name[: -len(ending)]) if ending else None
    return parsed if parsed and "sub" in parsed[0] else None


def _ending(name: str) -> str:
    return next((ending for ending in ENDINGS if name.endswith(ending)), "")
