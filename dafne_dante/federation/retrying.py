"""When a call is repeated, and after which pause.

Terms: the pause grows by a factor of two with every repetition (exponential backoff) and is drawn at random from its
upper half (jitter), so that a hundred sites that lost one server do not come back in one instant.

Invariants
- Only a ServerUnreachableError is followed by another attempt, and none that another attempt cannot change: a
  certificate that is not trusted, a proxy that says no, an upload that may have been taken. 400, 401 and 403 are other
  errors, so they are never asked again.
- What the server asks for in Retry-After is the shortest pause; when that is beyond the plan's bounds the call is given
  up at once instead of sleeping.
- A pause that would end after `total_s` is not begun.
"""

import random as randomness
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from dafne_dante.errors import CertificateError, ProxyRefusedError, ServerUnreachableError, UploadUnknownError

__all__ = ["RetryPlan", "Retrying", "pause_before"]

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPlan:
    """Bounds of the repetitions of one call.

    Attributes:
        retries: attempts after the first one.
        first_s, longest_s: upper ends of the first pause, and of any.
        longest_asked_s: how long a server may ask us to wait.
        total_s: from the first attempt's begin to the last one's.
    """

    retries: int = 3
    first_s: float = 0.5
    longest_s: float = 30.0
    longest_asked_s: float = 60.0
    total_s: float = 600.0


@dataclass(frozen=True)
class Retrying:
    """Repeats calls by a plan; `pause`, `draw` (uniform in [0, 1)) and `clock` (seconds) are the world outside."""

    plan: RetryPlan = field(default_factory=RetryPlan)
    pause: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = randomness.random
    clock: Callable[[], float] = time.monotonic

    def run(self, attempt: Callable[[], T], worth: Callable[[ServerUnreachableError], bool] = lambda error: True) -> T:
        """What `attempt` returns, repeated while it may help and `worth` agrees; else its last error."""
        begin, count = self.clock(), 0
        while True:
            try:
                return attempt()
            except (CertificateError, ProxyRefusedError, UploadUnknownError):
                raise
            except ServerUnreachableError as error:
                pause_s = pause_before(self.plan, count, self.draw(), error.retry_after_s)
                if pause_s is None or not worth(error) or self.clock() - begin + pause_s > self.plan.total_s:
                    raise
            self.pause(pause_s)
            count += 1


def pause_before(plan: RetryPlan, count: int, share: float, asked_s: float | None = None) -> float | None:
    """Seconds before repetition number `count` (0 is the first); None when there is to be none.

    `share` in [0, 1) is the random draw; `asked_s` is what the server asked for.
    """
    if count >= plan.retries or (asked_s is not None and asked_s > plan.longest_asked_s):
        return None
    # No sum of doublings beyond what a float can hold.
    highest = min(plan.first_s * 2.0 ** min(count, 60), plan.longest_s)
    return max(highest * (0.5 + 0.5 * share), asked_s or 0.0)
