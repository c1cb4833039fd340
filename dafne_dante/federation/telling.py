"""The progress of a transfer in words, seldom enough for a person to read."""

import time
from collections.abc import Callable

from dafne_dante.federation.transport import Progress

__all__ = ["told_in_megabytes"]

_SHARE = 0.1
_PAUSE_S = 5.0


def told_in_megabytes(
    say: Callable[[str], None], deed: str, *, clock: Callable[[], float] = time.monotonic
) -> Progress:  # fmt: skip
    """What tells `say`, for example, "downloading: 12 of 245 MB", after every tenth, or every 5 s if that is sooner.

    A file that comes in one go is not told of; the end of one that was told of is. `clock` gives seconds.
    """
    last_bytes, last_s = 0, clock()

    def progress(done: int, total: int) -> None:
        nonlocal last_bytes, last_s
        now_s = clock()
        if done < last_bytes:  # another try, from the beginning
            last_bytes = 0
        over = 0 < total <= done
        due = now_s - last_s >= _PAUSE_S or (total > 0 and done - last_bytes >= _SHARE * total)
        if (due and not over) or (over and 0 < last_bytes < done):
            say(f"{deed}: {_megabytes(done)}" + (f" of {_megabytes(total)} MB" if total else " MB"))
            last_bytes, last_s = done, now_s

    return progress


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f}" if count < 10e6 else f"{count / 1e6:.0f}"
