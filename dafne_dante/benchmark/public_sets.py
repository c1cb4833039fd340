"""Public sets by name, as domains: who has one unpacked in a folder can compare methods on it.

Terms: a *set* is what one name stands for: images of one kind, of all patients that it was published with.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.public_chaos import CHAOS_LABELS, chaos_studies
from dafne_dante.benchmark.public_nifti import (
    AMOS_LABELS,
    LESION_LABELS,
    PublicStudy,
    amos_studies,
    mslesseg_studies,
    wmh_studies,
)
from dafne_dante.errors import AnnotationError

__all__ = ["PUBLIC_SETS", "read_public_set"]

_Find = Callable[[Path], Iterator[PublicStudy]]
_SETS: Mapping[str, tuple[tuple[str, ...], _Find]] = MappingProxyType(
    {
        "amos22-ct": (AMOS_LABELS, lambda folder: amos_studies(folder, mri=False)),
        "amos22-mri": (AMOS_LABELS, lambda folder: amos_studies(folder, mri=True)),
        "chaos-t1-in": (CHAOS_LABELS, lambda folder: chaos_studies(folder, contrast="t1-in")),
        "chaos-t1-out": (CHAOS_LABELS, lambda folder: chaos_studies(folder, contrast="t1-out")),
        "chaos-t2": (CHAOS_LABELS, lambda folder: chaos_studies(folder, contrast="t2")),
        "mslesseg": (LESION_LABELS, mslesseg_studies),
        "wmh2017": (LESION_LABELS, wmh_studies),
        "wmh2017-amsterdam": (LESION_LABELS, lambda folder: wmh_studies(folder, site="GE3T")),
        "wmh2017-singapore": (LESION_LABELS, lambda folder: wmh_studies(folder, site="Singapore")),
        "wmh2017-utrecht": (LESION_LABELS, lambda folder: wmh_studies(folder, site="Utrecht")),
    }
)
PUBLIC_SETS: tuple[str, ...] = tuple(_SETS)


def read_public_set(name: str, folder: Path, *, domain: str, most: int) -> Domain:
    """The first `most` studies of a set of PUBLIC_SETS, as a domain of that name.

    Raises:
        AnnotationError: the folder does not have the layout of the set, or a study in it is damaged.
        StorageError: a file cannot be read.
    """
    labels, find = _SETS[name]
    studies = list(islice(find(folder), most))
    if not studies:
        raise AnnotationError(
            f"expected {name} as it is published in the folder, found no study of it; unpack it there"
        )
    cases = [study.read(f"{domain}-{number}") for number, study in enumerate(studies)]
    return Domain(domain, labels, cases, tuple(study.subject for study in studies))
