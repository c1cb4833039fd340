"""A person's own folders as domains.

Terms: a study's person is told by its name where that says so as BIDS does (`sub-...`), in all folders alike, unless
somebody said that other folders show other people; else each study is taken for a person of its own.

Invariants: equal images are one person, in one folder or in two; a name of a study goes no further than the subjects of
a domain, which are never written down.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.protocol import check_name
from dafne_dante.benchmark.public_sets import PUBLIC_SETS, common_contrasts, read_public_set
from dafne_dante.config import Settings
from dafne_dante.errors import SettingsError
from dafne_dante.plugin.collecting import CaseRequest, collect_cases

__all__ = ["FolderRequest", "folder_request", "named_folders", "one_person_one_name", "read_folder", "read_folders"]

_MOST_PUBLIC = 60
"""Studies of a public set: they are all in memory."""
_PERSON = re.compile(r"(?<![A-Za-z0-9])(sub-[A-Za-z0-9]+)")


@dataclass(frozen=True)
class FolderRequest:
    """A domain's name, the folder with its labelled studies, and whether no other folder shows the same people.

    `public` is the name of the public set that the folder is, one of PUBLIC_SETS; "" for a person's own studies.
    """

    name: str
    path: Path
    public: str = ""
    skip_faulty: bool = False
    other_people: bool = False


def folder_request(name: str, place: str) -> FolderRequest:
    """From DIR, or SET:DIR for a public set, as given on the command line."""
    public, separator, path = place.partition(":")
    if separator and public in PUBLIC_SETS:
        return FolderRequest(check_name(name), Path(path), public)
    return FolderRequest(check_name(name), Path(place))


def named_folders(texts: Sequence[str]) -> tuple[FolderRequest, ...]:
    """From NAME=DIR or NAME=SET:DIR, as given on the command line; SettingsError for anything else."""
    found = []
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not path:
            raise SettingsError(f"expected --target as NAME=DIR with --source, found {name[:60]!r} without a folder")
        found.append(folder_request(name, path))
    return tuple(found)


def read_folders(requests: Sequence[FolderRequest], settings: Settings) -> list[Domain]:
    """The domains, all with as many contrasts; of public sets those that all of them have, by name.

    Raises:
        SettingsError: they cannot have as many: nothing that is trained on one could be tried on another.
        AnnotationError, TrustError, StorageError: as read_folder.
    """
    names = common_contrasts(request.public for request in requests if request.public)
    found: dict[int, Domain] = {}
    known: int | None = None
    for place in sorted(range(len(requests)), key=lambda place: not requests[place].public):  # those with names first
        found[place] = read_folder(requests[place], settings, contrasts=known, names=names)
        count = len(found[place].cases[0].image)
        if count != (known or count):
            raise SettingsError(
                f"expected as many contrasts in {requests[place].name} as in the others, {known}, found {count}; "
                "choose folders with the same contrasts"
            )
        known = count
    return [found[place] for place in range(len(requests))]


def read_folder(
    request: FolderRequest, settings: Settings, *, contrasts: int | None = None, names: Sequence[str] = ()
) -> Domain:
    """All studies in the folder, with all labels that they have, sorted.

    Args:
        contrasts: how many a person's own studies must have; None for as many as the first has.
        names: which contrasts of a public set are read; all when left out.

    Raises:
        AnnotationError, TrustError, StorageError: as collect_cases.
    """
    if request.public:
        return read_public_set(request.public, request.path, domain=request.name, most=_MOST_PUBLIC, contrasts=names)
    wanted = CaseRequest((request.path,), skip_faulty=request.skip_faulty)
    collection = collect_cases(wanted, settings, contrasts=contrasts)
    cases = [
        replace(case, case_id=f"{request.name}-{number}") for number, case in enumerate(collection.cases)
    ]  # fmt: skip
    subjects = [_person(taken.name, request) for taken in collection.taken]
    return Domain(request.name, collection.cases[0].labels, cases, tuple(subjects))


def one_person_one_name(domains: Sequence[Domain]) -> list[Domain]:
    """The same domains; who shares an image with somebody has that one's name, in all of them."""
    first: dict[str, str] = {}
    same: dict[str, str] = {}
    for domain in domains:
        for case, subject in zip(domain.cases, domain.subjects, strict=True):
            known = first.setdefault(_image_digest(case), subject)
            _join(same, subject, known)
    return [replace(one, subjects=tuple(_root(same, subject) for subject in one.subjects)) for one in domains]


def _person(name: str, request: FolderRequest) -> str:
    found = _PERSON.search(name)
    person = found.group(1) if found else name
    return person if found and not request.other_people else f"{request.name} {person}"


def _image_digest(case: Case) -> str:
    digest = hashlib.sha256(str(case.image.shape).encode())
    digest.update(np.ascontiguousarray(case.image).data)
    return digest.hexdigest()


def _root(same: dict[str, str], subject: str) -> str:
    while subject in same:
        subject = same[subject]
    return subject


def _join(same: dict[str, str], one: str, other: str) -> None:
    one, other = _root(same, one), _root(same, other)
    if one != other:
        same[one] = other
