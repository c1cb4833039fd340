"""The case store as one more source of studies, beside folders of NIfTI, DICOM and Dafne bundles.

Invariants: a stored case lies on its canonical grid already and is read without being turned; its own labels are
names like those of any other source, so that a model's labels, in the model's order, are found as everywhere; equal
keys give it the case_id that it has in the store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dafne_dante.annotations.geometry import Reorientation
from dafne_dante.annotations.grid import ImageOnGrid
from dafne_dante.annotations.store.contents import CaseHeader
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.annotations.study import EmptySlices, Found, LabelledImage, Left

__all__ = ["StoredStudy", "find_stored_studies"]


@dataclass(frozen=True, eq=False)
class StoredStudy:
    """One case of a store; a Study (see `annotations.study`)."""

    store: CaseStore
    header: CaseHeader

    @property
    def name(self) -> str:
        """Its pseudonym: the store knows no other name."""
        return self.header.case_id

    @property
    def labels(self) -> tuple[str, ...]:
        """As it was added."""
        return self.header.labels

    @property
    def files(self) -> tuple[Path, ...]:
        """None that anybody else could open."""
        return ()

    @property
    def empty_slices(self) -> EmptySlices:
        """Of no effect: the store knows which slices were labelled."""
        return "unknown"

    def read(self, values: Mapping[str, int]) -> LabelledImage:
        """As `annotations.study.Study.read`; StorageError when the case is gone or damaged."""
        case = self.store.read(self.header.case_id)
        as_it_is = Reorientation((0, 1, 2), (1, 1, 1), case.shape)
        translation = np.zeros(256, dtype=np.uint8)
        for value, label in enumerate(case.labels, start=1):
            translation[value] = values.get(label, 0)
        grid = ImageOnGrid(f"case {case.case_id}", case.image, case.affine, as_it_is, case.affine)
        return LabelledImage(grid, translation[case.segmentation], case.annotated)


def find_stored_studies(store: CaseStore) -> Found:
    """The cases of a store by case_id, and what is damaged; no file is opened."""
    listing = store.listing()
    studies = tuple(StoredStudy(store, case.header) for case in listing.cases)
    return Found(studies, tuple(Left(damage.case_id, damage.reason) for damage in listing.damaged))
