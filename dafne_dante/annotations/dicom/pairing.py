"""Which image a label object belongs to, and which of several versions of a label counts.

Rules for the image, in this order
1. The one that it refers to, by instances, else by series. If there are several, those on whose grid it lies; if
   there still are, the one with most of the instances.
2. Where none of these is here: the only image in its frame of reference on whose grid it lies.
An image in another frame of reference than the object's own is never taken, even if the object refers to it.

Rules for versions of one label (by its key, see `labels.label_key`) on one image
1. The object with the latest content time counts, an object without one before none of those that have one.
2. Of two that are told to be drawn at the same time, or not told at all, neither counts, and no earlier one.
Labels that do not count are told of, with the object that counts instead. The object's other labels are taken.

Invariant: what is returned does not depend on the order in which files were found.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from dafne_dante.annotations.dicom.planes import Lattice
from dafne_dante.annotations.dicom.referenced import LabelObject
from dafne_dante.annotations.dicom.series import DicomSeries
from dafne_dante.annotations.labels import label_key
from dafne_dante.annotations.study import Left
from dafne_dante.errors import AnnotationError, DanteError

__all__ = ["Contribution", "choose_image", "choose_versions"]

_ADVICE = "put the image that it was drawn on beside it"


@dataclass(frozen=True)
class Contribution:
    """The labels that one object gives to a study."""

    source: LabelObject
    labels: tuple[str, ...]


def choose_image(
    labels: LabelObject, images: Sequence[DicomSeries], lattice_of: Callable[[DicomSeries], Lattice]
) -> DicomSeries:
    """The image that the labels belong to.

    Args:
        labels: a label object.
        images: those that may be chosen.
        lattice_of: its stored grid; raises a DanteError where an image has none.

    Raises:
        AnnotationError: there is none, or it cannot be told which; without the object's name.
    """
    told = labels.references
    referred = [image for image in images if _instances(labels, image)]
    referred = referred or [image for image in images if image.uid in told.series]
    candidates = [image for image in referred or images if _same_frame(labels, image, certainly=not referred)]
    if referred and not candidates:
        raise AnnotationError(
            "expected labels in the frame of reference of their image, found another; export them on that image"
        )
    if referred and len(candidates) == 1:
        return candidates[0]
    lying = [image for image in candidates if _lies_on(labels, image, lattice_of)]
    most = max((_instances(labels, image) for image in lying), default=0)
    best = [image for image in lying if _instances(labels, image) == most]
    if not best:
        raise AnnotationError(f"expected an image that these labels refer to or lie on, found none; {_ADVICE}")
    if len(best) > 1:
        raise AnnotationError(f"expected one image for these labels, found {len(best)} alike; choose one series")
    return best[0]


def choose_versions(found: Iterable[LabelObject]) -> tuple[list[Contribution], list[Left]]:
    """What each object gives to the study of one image, the earliest first, and what of them does not count."""
    owners: dict[str, LabelObject] = {}
    taken: list[Contribution] = []
    left: list[Left] = []
    ordered = sorted(found, key=lambda one: (one.content_time, one.name), reverse=True)
    for _, together in groupby(ordered, key=lambda one: one.content_time):
        alike = list(together)
        times = Counter(key for one in alike for key in _keys(one))
        disputed = {key for key, count in times.items() if count > 1} - owners.keys()
        for one in alike:
            own = tuple(label for label in one.labels if label_key(label) not in owners.keys() | disputed)
            taken += [Contribution(one, own)] if own else []
            left += _not_counting(one, owners, disputed)
        owners |= {key: one for one in alike for key in _keys(one) - owners.keys()}
    return taken[::-1], left


def _not_counting(one: LabelObject, owners: Mapping[str, LabelObject], disputed: Collection[str]) -> list[Left]:
    """What is told of the labels of an object that come from another one, or from none."""
    older = [label for label in one.labels if label_key(label) in owners]
    torn = [label for label in one.labels if label_key(label) in disputed]
    told = []
    if older:
        later = ", ".join(sorted({owners[label_key(label)].name for label in older}))
        told.append(Left(one.name, f"a later version of {', '.join(older)} counts, that in {later}"))
    if torn:
        told.append(
            Left(
                one.name,
                f"expected one version of {', '.join(torn)}, found several of which none is told to be the latest; "
                "remove all but one",
            )
        )
    return told


def _keys(one: LabelObject) -> set[str]:
    return {label_key(label) for label in one.labels}


def _instances(labels: LabelObject, image: DicomSeries) -> int:
    return len(labels.references.instances.intersection(image.sop_instance_uids))


def _same_frame(labels: LabelObject, image: DicomSeries, *, certainly: bool) -> bool:
    """Whether both are in one frame of reference; what is untold is no contradiction, unless it must be certain."""
    told = {labels.references.frame_of_reference, image.frame_of_reference_uid}
    return len(told) == 1 and "" not in told if certainly else len(told - {""}) <= 1


def _lies_on(labels: LabelObject, image: DicomSeries, lattice_of: Callable[[DicomSeries], Lattice]) -> bool:
    try:
        labels.draw({}, lattice_of(image), np.zeros((0, 0, 0), dtype=np.uint16))
    except DanteError:
        return False
    return True
