"""A case -> files that other programs read: NIfTI, in the plain layout that `nifti.plain` reads.

`image.nii.gz` (further contrasts `image2.nii.gz`, ...), `mask_<label>.nii.gz` (uint8, 1 where the label is) and
`annotated.json` (see `nifti.annotated`).

Invariants: every file has the affine of the case; file names are made of letters, digits and a few marks whatever the
label is called, and no two are equal; what was empty is written, for it says that a structure is absent.
"""

import gzip
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from nibabel.nifti1 import Nifti1Image

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.nifti.annotated import SIDECAR, encode_sidecar
from dafne_dante.annotations.nifti.volume import write_segmentation
from dafne_dante.durable import make_folder, write_atomically, write_stream_atomically
from dafne_dante.types import Affine, Volume

__all__ = ["mask_names", "write_nifti"]

_LEVEL = 4


def write_nifti(case: Case, folder: Path) -> list[Path]:
    """Write the case into the folder, which is made when it is not there; the files.

    Raises:
        StorageError: the disk refuses.
    """
    make_folder(folder)
    written = []
    for number, volume in enumerate(case.image, start=1):
        written.append(folder / f"image{number if number > 1 else ''}.nii.gz")
        _write_volume(written[-1], volume, case.affine)
    names = mask_names(case.labels)
    for value, label in enumerate(case.labels, start=1):
        written.append(folder / names[label])
        write_segmentation(written[-1], (case.segmentation == value).astype(np.uint8), case.affine)
    written.append(folder / SIDECAR)
    labelled = (int(index) for index in np.flatnonzero(case.annotated))
    called = {names[label]: label for label in case.labels}
    write_atomically(folder / SIDECAR, encode_sidecar(labelled, len(case.annotated), called))
    return written


def mask_names(labels: Sequence[str]) -> dict[str, str]:
    """Label to the name of its mask's file."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        plain = re.sub(r"[^\w .()+-]", "_", label)[:80].strip(" .") or "label"
        name, number = plain, 1
        while label_key(name) in taken:
            number += 1
            name = f"{plain} {number}"
        taken.add(label_key(name))
        names[label] = f"mask_{name}.nii.gz"
    return names


def _write_volume(path: Path, volume: Volume, affine: Affine) -> None:
    image = Nifti1Image(volume, affine)
    image.set_qform(affine, code="aligned")  # some viewers read nothing but the qform
    image.header.set_xyzt_units(xyz="mm")

    def fill(stream: IO[bytes]) -> None:
        with gzip.GzipFile(fileobj=stream, mode="wb", filename="", compresslevel=_LEVEL, mtime=0) as packed:
            image.to_stream(packed)

    write_stream_atomically(path, fill)
