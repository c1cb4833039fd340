"""What a worker tells while it works: one JSON object a line, in a file that anybody may follow.

Terms: an event has a *kind* (`started`, `stage`, `epoch`, `fallback`, `result`, `ended`), the seconds since 1970 when
it was told, and values by name. The last event of a worker is `ended`, unless it died.

Invariants
- A line is written whole. The file is bounded: after `MAX_BYTES` only results and ends are told.
- A worker goes on when nobody reads, also when the reader is gone.
- A reader believes nothing: a line that is too long or no event is left out, and memory stays bounded.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO, Any

from dafne_dante.errors import StorageError

__all__ = ["EVENTS_FILE", "KINDS", "MAX_BYTES", "Event", "EventFile", "EventWriter", "parse_event"]

EVENTS_FILE = "events.jsonl"
KINDS = ("started", "stage", "epoch", "fallback", "result", "ended")
MAX_BYTES = 4 << 20
_LAST_KINDS = ("result", "ended")
_MAX_LINE = 1 << 16
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Event:
    """One thing that a worker told."""

    kind: str
    at_s: float
    values: Mapping[str, Any] = field(default_factory=dict)


class EventWriter:
    """Writes events to a stream, which may break; safe to use from several threads."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.time) -> None:
        self._stream, self._clock, self._lock = stream, clock, Lock()
        self._written, self._broken = 0, False

    def tell(self, kind: str, **values: Any) -> None:
        """Write one event; where the stream refuses, this and all later ones are lost and the work goes on."""
        line = json.dumps({"event": kind, "at": round(self._clock(), 3), **values}, allow_nan=False) + "\n"
        with self._lock:
            if self._broken or len(line) > _MAX_LINE or (self._written > MAX_BYTES and kind not in _LAST_KINDS):
                return
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):  # a closed pipe, a full disk, a closed file
                self._broken = True
            self._written += len(line)


class EventFile:
    """Follows a file of events; each call of `take` gives what was added since."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path, self._rest, self._lost = path, b"", False
        self._place = self._size() if from_end else 0

    def take(self) -> list[Event]:
        """New events, at most a quarter of a MiB of them; none while there is no file.

        Raises:
            StorageError: the file cannot be read.
        """
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._place)
                block = stream.read(_BLOCK)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self._path.name}: {error.strerror or type(error).__name__}") from error
        self._place += len(block)
        *lines, self._rest = (self._rest + block).split(b"\n")
        if self._lost and lines:
            lines, self._lost = lines[1:], False
        if len(self._rest) > _MAX_LINE:
            self._rest, self._lost = b"", True
        return [event for line in lines if (event := parse_event(line)) is not None]

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def parse_event(line: bytes) -> Event | None:
    """The event of a line; None when it is none."""
    if len(line) > _MAX_LINE:
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    kind, at_s = found.pop("event", None), found.pop("at", None)
    if kind not in KINDS or isinstance(at_s, bool) or not isinstance(at_s, int | float):
        return None
    return Event(kind, float(at_s), found)
