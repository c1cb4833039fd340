"""Watch folders: which of their studies are new or changed, and complete.

Terms
- A study *changed* when any of its files did, or it gained or lost one; it is *waiting* while one of its files may
  still be written, and *ready* otherwise. What was kept or refused before, and did not change, is *unchanged*.
- A *look* is one scan of a folder; `now` is seconds since 1970 on this machine's clock, and only differences count.

Rules (`reason_to_wait`): a study is complete when nothing has touched its files for quiet_s. That is known from our
own looks, which saw the same facts quiet_s ago; or from the files' own stamps, unless they lie in the future (a server
whose clock is ahead) or the study appeared within quiet_s of the look before. A temporary beside a file that is named
like it, or that is young, means that somebody is at work, for a day at most: what is left of a crash blocks nothing.

Invariants
- A scan opens what searching opens and nothing else; a folder where nothing was left to do is not searched again
  for some hours, unless a file in it changes, or the way of reading does.
- A folder that is not there, or is empty all of a sudden (a share that is not mounted), is told and not forgotten.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from dafne_dante.annotations.search import find_studies_in
from dafne_dante.annotations.study import Found, Left, Study
from dafne_dante.annotations.watch_memory import FolderState, StudyState, WatchMemory
from dafne_dante.annotations.watched_files import FileFacts, Tree, is_named_like, look_at_folder, study_facts
from dafne_dante.errors import AnnotationError, StorageError

__all__ = ["QUIET_S", "Scan", "Search", "WatchedStudy", "reason_to_wait", "scan"]

QUIET_S = 60.0
_STALE_S = 24 * 3600.0
_SEARCH_AGAIN_S = 20 * 3600.0

Search: TypeAlias = Callable[[Sequence[Path]], Found]
"""What finds the studies in folders, as `search.find_studies_in` does."""


@dataclass(frozen=True, eq=False)
class WatchedStudy:
    """A study in a watch folder, as it was when the folder was looked at; `tag` and `fingerprint` as in the memory."""

    study: Study
    folder: Path
    facts: tuple[FileFacts, ...]
    tag: bytes = field(repr=False)
    fingerprint: bytes = field(repr=False)

    def is_as_it_was(self) -> bool:
        """Whether its files still have the same facts."""
        now = study_facts(self.study, self.folder)
        return now is not None and _identity(now) == _identity(self.facts)


@dataclass(frozen=True, eq=False)
class Scan:
    """What looking came to; names are for the screen (see `study`).

    Attributes:
        ready: new or changed, and complete; the one that was touched last comes last, so that it wins.
        waiting: still being written, with the sign of it.
        unchanged: how many studies need nothing.
        left: folders that are not there, and what the search left; with `again`, refused studies as well.
    """

    ready: tuple[WatchedStudy, ...] = ()
    waiting: tuple[Left, ...] = ()
    unchanged: int = 0
    left: tuple[Left, ...] = ()

    def __add__(self, other: "Scan") -> "Scan":
        return Scan(
            self.ready + other.ready,
            self.waiting + other.waiting,
            self.unchanged + other.unchanged,
            self.left + other.left,
        )


def scan(
    folders: Sequence[Path],
    memory: WatchMemory,
    now: float,
    quiet_s: float = QUIET_S,
    *,
    policy: str = "",
    again: bool = False,
    find: Search = find_studies_in,
) -> Scan:
    """Look at the watch folders once.

    Args:
        now: seconds since 1970.
        quiet_s: how long nothing must have touched a study.
        policy: a digest of how studies are read; studies that were refused under another one are ready again.
        again: search also where nothing changed, and tell again why studies were refused.

    Raises:
        StorageError: the memory cannot be used.
    """
    total = Scan()
    for folder in dict.fromkeys(folders):
        total += _scan_folder(folder, memory, now, quiet_s, policy=policy, again=again, find=find)
    ready: dict[tuple[Path, ...], WatchedStudy] = {}
    for one in sorted(total.ready, key=lambda one: (_touched(one.facts), one.study.name)):
        ready.setdefault(tuple(path.absolute() for path in one.study.files), one)  # one folder may lie in another
    return Scan(tuple(ready.values()), total.waiting, total.unchanged, total.left)


def reason_to_wait(
    facts: Sequence[FileFacts],
    temporaries: Mapping[str, Sequence[FileFacts]],
    state: StudyState,
    now: float,
    quiet_s: float,
) -> str:
    """Why the study may still be being written, in words; empty when it is complete. Pure.

    Args:
        facts: of all its files.
        temporaries: those of each folder, under its relative path (`Tree.temporaries`).
        state: what is known of the study with these facts.
    """
    for one in facts:
        for temporary in temporaries.get(one.parent, ()):
            if _is_at_work(temporary, one, now, quiet_s):
                return f"{temporary.name} lies beside it, so somebody is at work; delete it if nobody is"
    seen_quiet = now - state.since >= quiet_s
    stamps_quiet = now - _touched(facts) >= quiet_s
    if seen_quiet or (stamps_quiet and not state.moving):
        return ""
    return f"changed less than {quiet_s:g} s ago"


def _scan_folder(
    folder: Path, memory: WatchMemory, now: float, quiet_s: float, *, policy: str, again: bool, find: Search
) -> Scan:
    tag, tree = memory.tag(folder), look_at_folder(folder)
    if absent := _absence(tree, remembered=memory.count(tag)):
        return Scan(left=(Left(folder.name, absent),))
    digest = memory.fingerprint(tag, tree.files, f"folder {policy}").hex()
    before = memory.folder(tag)
    if not (again or tree.fault) and before is not None and _is_settled(before, digest, now):
        memory.note(tag, replace(before, looked=now))
        return Scan(unchanged=memory.count(tag))
    found, fault = _search(folder, find)
    fault = fault or tree.fault
    watched, moving = _watch(found.studies, folder, memory, tag)
    fingerprints = [one.fingerprint for one in watched]
    states = memory.look(tag, fingerprints, now, quiet_s=quiet_s, complete=not (fault or moving))
    result = _sort_out(watched, states, tree, now, quiet_s, policy=policy, again=again)
    if not (result.ready or result.waiting or moving or fault):
        memory.note(tag, FolderState(now, digest, now))
    return result + Scan(waiting=moving, left=found.left + ((Left(folder.name, fault),) if fault else ()))


def _is_settled(state: FolderState, digest: str, now: float) -> bool:
    """For hours, not for ever: what the search left may have been out of reach for a moment."""
    return state.settled == digest and 0 <= now - state.searched < _SEARCH_AGAIN_S


def _absence(tree: Tree, *, remembered: int) -> str:
    if not tree.exists:
        return f"{tree.fault}; connect its drive, or take it out of the settings"
    if not tree.files and not tree.fault and remembered:
        return f"is empty, and had {remembered} studies; connect its drive if it should not be"
    return ""


def _search(folder: Path, find: Search) -> tuple[Found, str]:
    """What was found, and why the search broke off, in words."""
    try:
        return find([folder]), ""
    except (AnnotationError, StorageError) as error:
        return Found(), str(error)


def _watch(
    studies: Sequence[Study], folder: Path, memory: WatchMemory, tag: bytes
) -> tuple[list[WatchedStudy], tuple[Left, ...]]:
    """The studies with their facts, and those whose files went away while we looked."""
    watched: list[WatchedStudy] = []
    moving: list[Left] = []
    for study in studies:
        facts = study_facts(study, folder)
        if facts is None:
            moving.append(Left(study.name, "a file of it was taken away just now"))
        else:
            watched.append(WatchedStudy(study, folder, facts, tag, memory.fingerprint(tag, facts)))
    return watched, tuple(moving)


def _sort_out(
    watched: Sequence[WatchedStudy],
    states: Sequence[StudyState],
    tree: Tree,
    now: float,
    quiet_s: float,
    *,
    policy: str,
    again: bool,
) -> Scan:
    ready: list[WatchedStudy] = []
    waiting: list[Left] = []
    refused: list[Left] = []
    unchanged, temporaries = 0, tree.temporaries()
    for one, state in zip(watched, states, strict=True):
        if state.kind == "kept" or (state.kind == "refused" and state.policy == policy):
            unchanged += 1
            if again and state.kind == "refused":
                refused.append(Left(one.study.name, state.reason))
        elif reason := reason_to_wait(one.facts, temporaries, state, now, quiet_s):
            waiting.append(Left(one.study.name, reason))
        else:
            ready.append(one)
    return Scan(tuple(ready), tuple(waiting), unchanged, tuple(refused))


def _is_at_work(temporary: FileFacts, beside: FileFacts, now: float, quiet_s: float) -> bool:
    age = abs(now - temporary.stamp_s)
    return age < (_STALE_S if is_named_like(temporary.name, beside.name) else quiet_s)


def _touched(facts: Sequence[FileFacts]) -> float:
    return max(one.stamp_s for one in facts)


def _identity(facts: Sequence[FileFacts]) -> list[tuple[str, int, int]]:
    return [(one.path, one.size, one.modified_ns) for one in facts]
