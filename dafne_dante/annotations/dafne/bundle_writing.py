"""A Case as one of Dafne's bundles, which Dafne, Dante and we ourselves can open.

Invariants: stock Dafne needs `data`, takes `resolution` and `affine`, makes a label of every `mask_<label>` and passes
over other names (see `bundle`), so everything of ours fits beside that; there is no comment, since Dafne would show it
in a window. The file is whole or absent, and the same case gives the same bytes: no date and no name is stored. A case
on its canonical grid is read back as it was: image, labels, affine and labelled slices.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.dafne.bundle import AFFINE, ANNOTATED, MASK_PREFIX, RESOLUTION, contrast_name
from dafne_dante.annotations.dafne.npz import ENDING
from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.files import checked_label
from dafne_dante.durable import write_stream_atomically
from dafne_dante.errors import AnnotationError, StorageError
from dafne_dante.types import Volume

__all__ = ["write_bundle"]


def write_bundle(case: Case, path: Path) -> None:
    """Write the case to `path`, whole or not at all.

    Raises:
        AnnotationError: two labels that a file would not keep apart, or one whose name it cannot hold.
        StorageError: a name that does not end in .npz, or the disk refuses.
    """
    if not path.name.endswith(ENDING):
        raise StorageError(f"expected a file name that ends in {ENDING}, found {path.name}; rename the output")
    _check_labels(case.labels)
    write_stream_atomically(path, lambda stream: _write_arrays(stream, _arrays(case)))


def _arrays(case: Case) -> Mapping[str, Volume]:
    contrasts = {contrast_name(number): channel for number, channel in enumerate(case.image)}
    masks = {
        f"{MASK_PREFIX}{label}": (case.segmentation == value).astype(np.uint8)
        for value, label in enumerate(case.labels, start=1)
    }
    return {
        **contrasts,
        **masks,
        RESOLUTION: np.array(case.spacing_mm),
        AFFINE: case.affine,
        ANNOTATED: case.annotated,
    }


def _write_arrays(stream: IO[bytes], arrays: Mapping[str, Volume]) -> None:
    """As `numpy.savez_compressed`, but five times as quick, for a sixth more bytes."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:  # a name, so its date is that of no day
                npy.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _check_labels(labels: tuple[str, ...]) -> None:
    names = [checked_label(label, "a bundle") for label in labels]
    if len({label_key(name) for name in names}) != len(names):
        raise AnnotationError("expected labels that differ in more than spelling, found two alike; rename one")
    if any("\\" in name or ".." in name.split("/") for name in names):
        raise AnnotationError("expected names of labels, found one that is a path; rename it")
