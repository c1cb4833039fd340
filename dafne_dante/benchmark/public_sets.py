"""Public sets by name, as domains: who has one unpacked in a folder can compare methods on it.

Terms: a *set* is what one name stands for: images of one kind, of all patients that it was published with. Contrasts of
sets that have several have names (FLAIR, T1, T2), so that sets with different ones can be compared on those in common.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.public_chaos import CHAOS_LABELS, ChaosContrast, chaos_studies
from dafne_dante.benchmark.public_nifti import (
    AMOS_LABELS,
    LESION_LABELS,
    MSLESSEG_CONTRASTS,
    WMH_CONTRASTS,
    PublicStudy,
    amos_studies,
    mslesseg_studies,
    wmh_studies,
)
from dafne_dante.errors import AnnotationError, SettingsError

__all__ = ["PUBLIC_SETS", "common_contrasts", "read_public_set"]


@dataclass(frozen=True)
class _Set:
    """What a set holds: its labels, its contrasts by name where it has several, and what finds its studies.

    `find` is given the folder and the contrasts to read, none where there is one without a name.
    """

    labels: tuple[str, ...]
    find: Callable[[Path, Sequence[str]], Iterator[PublicStudy]]
    contrasts: tuple[str, ...] = ()


def _wmh(site: str = "") -> _Set:
    return _Set(
        LESION_LABELS, lambda folder, contrasts: wmh_studies(folder, site=site, contrasts=contrasts), WMH_CONTRASTS
    )


def _chaos(contrast: ChaosContrast) -> _Set:
    return _Set(CHAOS_LABELS, lambda folder, contrasts: chaos_studies(folder, contrast=contrast))


_SETS: Mapping[str, _Set] = MappingProxyType(
    {
        "amos22-ct": _Set(AMOS_LABELS, lambda folder, contrasts: amos_studies(folder, mri=False)),
        "amos22-mri": _Set(AMOS_LABELS, lambda folder, contrasts: amos_studies(folder, mri=True)),
        "chaos-t1-in": _chaos("t1-in"),
        "chaos-t1-out": _chaos("t1-out"),
        "chaos-t2": _chaos("t2"),
        "mslesseg": _Set(
            LESION_LABELS, lambda folder, contrasts: mslesseg_studies(folder, contrasts=contrasts), MSLESSEG_CONTRASTS
        ),
        "wmh2017": _wmh(),
        "wmh2017-amsterdam": _wmh("GE3T"),
        "wmh2017-singapore": _wmh("Singapore"),
        "wmh2017-utrecht": _wmh("Utrecht"),
    }
)
PUBLIC_SETS: tuple[str, ...] = tuple(_SETS)


def common_contrasts(names: Iterable[str]) -> tuple[str, ...]:
    """The contrasts by name that all of these sets have, in the order of the first; sets without names do not count.

    Raises:
        SettingsError: there are such sets, but no contrast is in all of them.
    """
    named = {name: _SETS[name].contrasts for name in names if _SETS[name].contrasts}
    if not named:
        return ()
    first, *others = named.values()
    common = tuple(contrast for contrast in first if all(contrast in other for other in others))
    if not common:
        told = "; ".join(f"{name}: {', '.join(contrasts)}" for name, contrasts in named.items())
        raise SettingsError(f"expected sets with a contrast in common, found {told}; choose other sets")
    return common


def read_public_set(name: str, folder: Path, *, domain: str, most: int, contrasts: Sequence[str] = ()) -> Domain:
    """The first `most` studies of a set of PUBLIC_SETS, as a domain of that name.

    Args:
        contrasts: which of the set's to read, by name and in this order; all when left out. A set without names has
            its one.

    Raises:
        AnnotationError: the folder does not have the layout of the set, or a study in it is damaged.
        StorageError: a file cannot be read.
    """
    wanted = _SETS[name]
    read = tuple(contrasts) if contrasts and wanted.contrasts else wanted.contrasts
    studies = list(islice(wanted.find(folder, read), most))
    if not studies:
        raise AnnotationError(
            f"expected {name} as it is published in the folder, found no study of it; unpack it there"
        )
    cases = [study.read(f"{domain}-{number}") for number, study in enumerate(studies)]
    return Domain(domain, wanted.labels, cases, tuple(study.subject for study in studies))
