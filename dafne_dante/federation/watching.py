"""Merging for ever: a look at the queue now and then, a merge when something waits.

Terms: an *event* is one JSON object on one line: `at` (UTC), `event` and what belongs to it. The events are "started",
"waiting" (once after each change), "merged" (a `MergeReport`; also when nothing was published), "failed" (one try; the
next comes as usual) and "stopped".

Invariants: the operator's lock is held all the time; SIGTERM and SIGINT end the watch between two steps of the work, a
second one at once, and neither does harm, since a merge may end anywhere; a server or disk that fails, and a server
whose versions are not the operator's, is told of and tried again; whatever else the operator has to correct ends the
watch.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from dafne_dante.annotations.case import Case
from dafne_dante.config import Settings
from dafne_dante.errors import StorageError, TransportError, UntrustedVersionError
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.operator import MergeOptions, merge_pending
from dafne_dante.federation.operator_turn import operator_turn
from dafne_dante.federation.publishing import utc_now

__all__ = ["Stop", "Tell", "watch_queue"]

Tell = Callable[[Mapping[str, Any]], None]
"""Takes one event."""


class Stop:
    """Whether somebody asked to stop; `on_signals` lets SIGTERM and SIGINT ask."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        """Ask to stop."""
        self._asked.set()

    def is_asked(self) -> bool:
        """Whether somebody did."""
        return self._asked.is_set()

    def wait(self, seconds: float) -> None:
        """Return after that time, or when somebody asks."""
        self._asked.wait(seconds)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """The first signal asks, the second is a KeyboardInterrupt; in the main thread only."""

        def heard(_number: int, _frame: FrameType | None) -> None:
            if self.is_asked():
                raise KeyboardInterrupt
            self.ask()

        before = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def watch_queue(
    depot: Depot,
    model_type: str,
    validation: Sequence[Case],
    settings: Settings,
    *,
    options: MergeOptions,
    every_s: float,
    stop: Stop,
    tell: Tell,
) -> None:
    """Merge what waits, now and every `every_s` seconds, until `stop` is asked.

    Raises:
        StorageError: another operator is at work.
        SettingsError, AnnotationError, ModelError, TrustError: as `merge_pending`; nobody but the operator can help.
        KeyboardInterrupt: a second signal.
    """
    options = replace(options, is_stopping=stop.is_asked)
    with operator_turn(settings.folder, model_type):
        _say(tell, "started", type=model_type, every_s=every_s)
        # The first look also settles what a crash has left, though nothing may wait.
        is_first, was_waiting = True, False
        while not stop.is_asked():
            try:
                if is_first or depot.pending():
                    report = merge_pending(depot, model_type, validation, settings, options)
                    has_done = bool(report.merged or report.quarantined)
                    if has_done or (report.skipped and not was_waiting):
                        _say(tell, "merged", **report.as_json())
                    was_waiting = was_waiting and not has_done
                    is_first = False
                    if has_done:
                        continue  # what was postponed, and what came meanwhile
                if not was_waiting:
                    _say(tell, "waiting")
                    was_waiting = True
            except (TransportError, StorageError, UntrustedVersionError) as error:
                _say(tell, "failed", reason=str(error))
                was_waiting = False
            except KeyboardInterrupt:
                if not stop.is_asked():
                    raise
                break
            stop.wait(every_s)
        _say(tell, "stopped")


def _say(tell: Tell, event: str, **facts: Any) -> None:
    tell({"at": utc_now(), "event": event, **facts})
