"""How long the plugin holds the thread that paints: every function of ours that Dafne or Qt calls there is timed.

Terms: a *call* is one entry into any function of `dafne_dante.host.dafne_qt` from outside of it, to its return; what it
calls in turn is in it. Not in it: `start_dafne`, which is all of Dafne, and the provider's `load_model`, which first is
Dafne's own; what the plugin adds to that, `_improve`, is.

Not in it either: the question at closing (`closing`, `leave`), which waits for the person while Qt's loop goes on.

Time in which a thread of this process waits for a processor that other processes have is taken off
(`/proc/self/task/*/schedstat`): on a busy machine it is theirs, and the interpreter's lock may be held by a thread that
waits so. Waiting for a lock, the disk or the network is not taken off. On a machine that is otherwise idle nothing is.
"""

import functools
import importlib
import pkgutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FunctionType

PACKAGE = "dafne_dante.host.dafne_qt"
NOT_OURS = ("start_dafne", "load_model", "with_hooks", "__getattr__", "closing", "leave")
_THREADS = Path("/proc/self/task")


def waited_s():
    """Seconds that the threads of this process have waited for a processor; 0 where the system does not tell."""
    waited_ns = 0
    for thread in _THREADS.iterdir() if _THREADS.is_dir() else ():
        with suppress(OSError, ValueError, IndexError):  # a thread that has just ended
            waited_ns += int((thread / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


class Meter:
    """Times calls into the plugin; `calls` has name and milliseconds of each in the thread that made the meter."""

    def __init__(self):
        self.calls, self._thread, self._depth = [], threading.get_ident(), 0

    def watch(self):
        """Put a stopwatch around every function of the package's modules and their classes."""
        package = importlib.import_module(PACKAGE)
        for found in pkgutil.iter_modules(package.__path__, f"{PACKAGE}."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            for kind in [one for one in vars(module).values() if isinstance(one, type)]:
                if kind.__module__ == found.name:
                    self._wrap_all(kind)
            self._wrap_all(module)

    def _wrap_all(self, owner):
        for name, function in list(vars(owner).items()):
            if isinstance(function, FunctionType) and function.__module__.startswith(PACKAGE) and name not in NOT_OURS:
                setattr(owner, name, self._timed(function))

    def _timed(self, function):
        @functools.wraps(function)
        def timed(*arguments, **options):
            if threading.get_ident() != self._thread or self._depth:
                return function(*arguments, **options)
            self._depth += 1
            waited, begin = waited_s(), time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                took = time.perf_counter() - begin
                took -= min(took, max(0.0, waited_s() - waited))
                self._depth -= 1
                self.calls.append((function.__qualname__, round(1e3 * took, 2)))

        return timed

    def longest(self, most=5):
        """The longest calls, as name and milliseconds."""
        return sorted(self.calls, key=lambda call: -call[1])[:most]
