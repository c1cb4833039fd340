"""How often somebody may call: a token bucket each (as RFC 2697 meters traffic).

Terms: a bucket holds at most `burst` tokens and gains `per_s` every second; a call takes tokens. *Who* is a user's name
or an address; IPv6 addresses of one /64 count as one, since a single machine has all of them.

Invariants: memory is bounded by `most` buckets, the least recently used goes first and is full when it comes back; a
call that is refused takes nothing; safe in threads.
"""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Rate", "RateLimit", "address_group"]

_MOST = 50_000


@dataclass(frozen=True)
class Rate:
    """Calls at once, and calls a second in the long run; both above 0."""

    burst: float
    per_s: float


class RateLimit:
    """Buckets of one rate; `clock` gives seconds that never run backwards."""

    def __init__(self, rate: Rate, *, most: int = _MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = rate, most, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, who: str, tokens: float = 1.0) -> float:
        """0.0 when the call may go on; else the seconds until it may, and nothing is taken."""
        with self._lock:
            left = self._left(who)
            missing = tokens - left
            if missing <= 0:
                self._put(who, left - tokens)
                return 0.0
            return missing / self._rate.per_s

    def charge(self, who: str, tokens: float) -> None:
        """Take tokens for what turned out to be dear, down to an empty bucket."""
        with self._lock:
            self._put(who, max(0.0, self._left(who) - tokens))

    def _left(self, who: str) -> float:
        tokens, at_s = self._buckets.get(who, (self._rate.burst, self._clock()))
        return min(self._rate.burst, tokens + (self._clock() - at_s) * self._rate.per_s)

    def _put(self, who: str, tokens: float) -> None:
        self._buckets[who] = (tokens, self._clock())
        self._buckets.move_to_end(who)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)


def address_group(address: str) -> str:
    """The address, or for IPv6 its /64; any other text as it is, at most 64 characters."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
