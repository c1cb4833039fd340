"""Which cases a store drops: the oldest, until it is within its limits. A pure decision.

Terms: the *age* of a case is the time since its newest version was saved.

Invariants: of two cases the older one goes first, ties by case_id; the newest case stays however large it is, unless
it is too old: a site never loses what it has just saved because it is big.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dafne_dante.errors import SettingsError

__all__ = ["Kept", "Limits", "beyond_limits"]

_NS_PER_DAY = 86_400 * 10**9


@dataclass(frozen=True)
class Limits:
    """How much is kept; SettingsError unless each is at least 1 case, more than 0 days, and 1 byte.

    Attributes:
        cases: how many.
        days: how old.
        max_bytes: how much on disk, together.
        prepared_bytes: how much on disk, beside them, of cases that are prepared for training; 0 for none.
    """

    cases: int = 1000
    days: float = 3650.0
    max_bytes: int = 50 << 30
    prepared_bytes: int = 20 << 30

    def __post_init__(self) -> None:
        if self.cases < 1 or not self.days > 0 or self.max_bytes < 1:
            raise SettingsError("expected a store that keeps at least 1 case, some days and some bytes; correct keep_*")


class Kept(Protocol):
    """What the decision needs to know of a case."""

    @property
    def case_id(self) -> str:
        """Its pseudonym."""

    @property
    def saved_ns(self) -> int:
        """When it was saved, nanoseconds since 1970."""

    @property
    def file_bytes(self) -> int:
        """Its size on disk."""


def beyond_limits(kept: Sequence[Kept], limits: Limits, *, now_ns: int) -> tuple[str, ...]:
    """The case_ids to drop, oldest first."""
    newest_first = sorted(kept, key=lambda case: (case.saved_ns, case.case_id), reverse=True)
    too_old_ns = now_ns - int(limits.days * _NS_PER_DAY)
    staying, total = 0, 0
    for case in newest_first:
        total += case.file_bytes
        is_too_much = staying > 0 and (staying >= limits.cases or total > limits.max_bytes)
        if is_too_much or case.saved_ns < too_old_ns:
            break
        staying += 1
    return tuple(case.case_id for case in reversed(newest_first[staying:]))
