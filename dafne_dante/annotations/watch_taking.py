"""New and changed studies of watch folders -> cases that somebody keeps.

Invariants
- A study is remembered after it was kept: whoever dies in between is offered it again, and a store replaces what it
  has. So nothing is lost, and nothing is kept twice under two ids.
- A study whose files changed while they were read is not kept; it waits for the next scan.
- What cannot be read as it is, is refused once and not tried again before it, or the way of reading, changes. What a
  disk refused is tried again.
- Each study is read on its own, with its own labels under the names of the site's table: one that is bad costs no
  other. One image is in memory at a time.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dafne_dante._version import __version__
from dafne_dante.annotations.case import Case
from dafne_dante.annotations.collect import Taken
from dafne_dante.annotations.reading import Reading, read_case
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.annotations.study import Left
from dafne_dante.annotations.watch import QUIET_S, Search, WatchedStudy, scan
from dafne_dante.annotations.watch_memory import WatchMemory
from dafne_dante.errors import AnnotationError, StorageError

__all__ = ["TakenNew", "reading_policy", "take_new"]


@dataclass(frozen=True)
class TakenNew:
    """What came of the watch folders; names are for the screen (see `study`).

    Attributes:
        taken: studies that became cases, in the order that they were kept.
        waiting: still being written, with the sign of it.
        left: not taken, with the reason.
        unchanged: how many studies needed nothing.
    """

    taken: tuple[Taken, ...]
    waiting: tuple[Left, ...]
    left: tuple[Left, ...]
    unchanged: int


def take_new(
    folders: Sequence[Path],
    memory: WatchMemory,
    keep: Callable[[Case], object],
    *,
    reading: Reading | None = None,
    clock: Callable[[], float] = time.time,
    quiet_s: float = QUIET_S,
    again: bool = False,
    find: Search = find_studies_in,
) -> TakenNew:
    """Read every study that is new or changed, and hand each case to `keep`.

    Args:
        keep: stores a case durably before it returns; what it raises is raised, with the cases before remembered.
        reading: how the site wants its studies to be read; its key is that of the store's case_ids.
        again: tell again why studies were refused before (they are not tried again).

    Raises:
        StorageError: the memory cannot be used.
    """
    reading = reading or Reading()
    policy = reading_policy(reading)
    found = scan(folders, memory, clock(), quiet_s, policy=policy, again=again, find=find)
    taken: list[Taken] = []
    waiting, left = list(found.waiting), list(found.left)
    for watched in found.ready:
        outcome = _take(watched, memory, keep, reading, policy)
        if isinstance(outcome, Taken):
            taken.append(outcome)
        elif isinstance(outcome, Left):
            left.append(outcome)
        else:
            waiting.append(Left(watched.study.name, "changed while it was read"))
    return TakenNew(tuple(taken), tuple(waiting), tuple(left), found.unchanged)


def reading_policy(reading: Reading) -> str:
    """A digest of all that decides whether a study can be read: the site's wishes and this version of the software."""
    names = sorted((label, *others) for label, others in reading.names.synonyms.items())
    wishes = (__version__, names, sorted(reading.names.ignored), reading.empty_slices, reading.missing_is_absent)
    return hashlib.sha256(repr(wishes).encode()).hexdigest()


def _take(
    watched: WatchedStudy, memory: WatchMemory, keep: Callable[[Case], object], reading: Reading, policy: str
) -> Taken | Left | None:
    """Read, check that nothing changed meanwhile, keep, and only then remember; None where something did change."""
    try:
        case, notes = read_case(watched.study, None, reading)
    except StorageError as error:
        return Left(watched.study.name, str(error))
    except AnnotationError as error:
        if not watched.is_as_it_was():
            return None
        memory.refuse(watched.tag, watched.fingerprint, str(error), policy)
        return Left(watched.study.name, str(error))
    if not watched.is_as_it_was():
        return None
    keep(case)
    memory.keep(watched.tag, watched.fingerprint)
    return Taken(watched.study.name, case.case_id, notes)
