"""How long the plugin holds the thread that paints: every function of ours that Dafne or Qt calls there is timed.

Terms: a *call* is one entry into any function of `dafne_dante.host.dafne_qt` from outside of it, to its return; what it
calls in turn is in it. Not in it: `start_dafne`, which is all of Dafne, and the provider's `load_model`, which first is
Dafne's own; what the plugin adds to that, `_improve`, is.

Time that the thread waits for a processor which other processes have is taken off (`/proc/thread-self/schedstat`): on a
busy machine it is theirs. Waiting for a lock, for the interpreter, the disk or the network is not.
"""

import functools
import importlib
import pkgutil
import threading
import time
from pathlib import Path
from types import FunctionType

PACKAGE = "dafne_dante.host.dafne_qt"
NOT_OURS = ("start_dafne", "load_model", "with_hooks", "__getattr__")
_WAITED = Path("/proc/thread-self/schedstat")


def waited_s():
    """Seconds that this thread has waited for a processor since it began; 0 where the system does not tell."""
    try:
        return int(_WAITED.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


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
            begin, waited = time.perf_counter(), waited_s()
            try:
                return function(*arguments, **options)
            finally:
                took = time.perf_counter() - begin - (waited_s() - waited)
                self._depth -= 1
                self.calls.append((function.__qualname__, round(1e3 * took, 2)))

        return timed

    def longest(self, most=5):
        """The longest calls, as name and milliseconds."""
        return sorted(self.calls, key=lambda call: -call[1])[:most]
