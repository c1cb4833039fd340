"""How much memory a new program could take here, as Linux tells it.

Terms: a *control group* (cgroup) is how a container or a batch system limits memory; groups lie within each other, and
every limit on the way up counts. Memory that only keeps copies of files counts as free, in a group as in the machine.

Invariants: files are read up to 64 KiB; whatever is missing or malformed counts as no limit, never as an error.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["free_bytes"]

_MAX_CHARACTERS = 1 << 16
_FILES = {  # limit, usage, and what of the usage is only copies of files; version 2, then version 1
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that are free; None where the system does not tell, as outside Linux. `root` is that of the system."""
    available = _field(root / "proc/meminfo", "MemAvailable:")
    if available is None:
        return None
    return max(0, min([1024 * available, *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> Iterator[int]:
    """What is left below the limit of each group that this process is in."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        kind = "" if not controllers else "memory" if "memory" in controllers.split(",") else None
        if kind is None:
            continue
        folder, limit_name, usage_name, cached_name = _FILES[kind]
        for inner in _upwards(group):
            limit = _number(root / folder / inner / limit_name)
            usage = _number(root / folder / inner / usage_name)
            if limit is not None and usage is not None:
                cached = _field(root / folder / inner / "memory.stat", cached_name) or 0
                yield limit - usage + min(cached, usage)


def _upwards(group: str) -> Iterator[PurePosixPath]:
    """The group's folder and those that it lies in, the outermost last; inside a container there is only that."""
    inner = PurePosixPath(group.lstrip("/"))
    if ".." not in inner.parts:
        yield inner
        yield from inner.parents
    else:
        yield PurePosixPath()


def _number(path: Path) -> int | None:
    """The whole number that is all of a file; None for "max"."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int | None:
    """The number behind a name at the beginning of a line."""
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return None


def _text(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(_MAX_CHARACTERS)
    except OSError:
        return ""
