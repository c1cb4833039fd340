"""What a watch folder holds, as facts about files: no file is opened.

Terms
- The *facts* of a file are its path relative to the watch folder, its size and its modification time: two equal facts
  are one content. Its *stamp* is the later of the times of modification and of change (creation on Windows): a copy
  that keeps the modification time still has a young stamp.
- A *temporary* is a file by whose name a program says that it is at work: a download, a copy, an edit, a lock.

Invariants: at most MAX_ENTRIES entries are looked at, and links to folders are not followed, so that a look ends;
whatever could not be seen makes a look incomplete and is told; hidden files count here, since temporaries hide.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dafne_dante.annotations.study import Study

__all__ = ["MAX_ENTRIES", "FileFacts", "Tree", "is_named_like", "is_temporary", "look_at_folder", "study_facts"]

MAX_ENTRIES = 400_000
"""Files and folders that are looked at in one watch folder."""

_ENDINGS = (".part", ".partial", ".filepart", ".tmp", ".temp", ".crdownload", ".download", ".swp", ".lock", ".lck", "~")
_BEGINNINGS = ("~$", ".~", ".#")
_NANOSECONDS = 1e9


@dataclass(frozen=True, order=True)
class FileFacts:
    """Facts of one file; `stamp_s` in seconds since 1970, as the file's own disk tells them."""

    path: str
    size: int
    modified_ns: int
    stamp_s: float

    @property
    def parent(self) -> str:
        """The folder that the file is in."""
        return str(PurePosixPath(self.path).parent)

    @property
    def name(self) -> str:
        """The base name."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Tree:
    """One look at a folder.

    Attributes:
        files: of the whole tree, by path.
        fault: why not all of it was seen, in words; empty when it was.
        exists: whether there is such a folder at all.
    """

    files: tuple[FileFacts, ...]
    fault: str = ""
    exists: bool = True

    def temporaries(self) -> dict[str, list[FileFacts]]:
        """The temporaries of each folder that has some, under the folder's relative path."""
        found: dict[str, list[FileFacts]] = {}
        for one in self.files:
            if is_temporary(one.name):
                found.setdefault(one.parent, []).append(one)
        return found


def look_at_folder(folder: Path) -> Tree:
    """The facts of every file under the folder; nothing is raised, what cannot be seen is told in `fault`."""
    files: list[FileFacts] = []
    waiting, entries = [""], 0
    fault = ""
    while waiting:
        relative = waiting.pop()
        try:
            with os.scandir(folder / relative) as listing:
                for entry in listing:
                    entries += 1
                    if entries > MAX_ENTRIES:
                        return Tree(tuple(sorted(files)), f"expected at most {MAX_ENTRIES} files, found more")
                    path = f"{relative}/{entry.name}" if relative else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    elif (facts := _facts(path, Path(entry.path))) is not None:
                        files.append(facts)
        except OSError as error:
            if not relative:
                return Tree((), f"cannot be listed: {error.strerror or type(error).__name__}", exists=False)
            fault = f"a folder in it cannot be listed: {error.strerror or type(error).__name__}"
    return Tree(tuple(sorted(files)), fault)


def study_facts(study: Study, folder: Path) -> tuple[FileFacts, ...] | None:
    """The facts of a study's files as they are now, by path; None when one is not there any more."""
    facts = [_facts(_relative(path, folder), path) for path in dict.fromkeys(study.files)]
    found = [one for one in facts if one is not None]
    return tuple(sorted(found)) if found and len(found) == len(facts) else None


def is_temporary(name: str) -> bool:
    """Whether a file of that base name is one that a program is at work with."""
    return name.lower().endswith(_ENDINGS) or name.startswith(_BEGINNINGS) or _is_rsync(name)


def is_named_like(temporary: str, name: str) -> bool:
    """Whether a temporary belongs to the file `name`, by base names: `a.nii.gz.part` and `a.tmp` to `a.nii.gz`."""
    core = temporary.lstrip(".~$#").removeprefix("lock.").rstrip("#")
    ending = next((ending for ending in _ENDINGS if core.lower().endswith(ending)), "")
    core = core[: len(core) - len(ending)]
    return bool(core) and (core == name or name.startswith(f"{core}.") or core.startswith(f"{name}."))


def _is_rsync(name: str) -> bool:
    """rsync writes `.<name>.<six letters or digits>`, such as `.image.nii.gz.aB3xY9`."""
    end = name.rpartition(".")[2]
    return name.startswith(".") and name.count(".") >= 3 and len(end) == 6 and end.isalnum() and end.isascii()


def _facts(relative: str, path: Path) -> FileFacts | None:
    """None for what is no file, or went away."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    stamp = max(status.st_mtime_ns, status.st_ctime_ns) / _NANOSECONDS
    return FileFacts(relative, status.st_size, status.st_mtime_ns, stamp)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
