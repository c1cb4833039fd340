"""Which updates of a batch are to blame when the operator's cases speak against it.

Terms: a *try* merges some updates and evaluates the result, one to three times (`merge.STEPS`); it goes *all the way*
when its step is 1. A *culprit* is refused, a *postponed* update waits for the next merge, the others are *kept*.

Rules
1. A batch that goes all the way is kept as it is.
2. Else each update is left out in turn. The one without which the others get furthest is a culprit, if they get further
   than with it, and if it does not go all the way on its own. Then the same again with the others.
3. If nothing goes with the step at 0, each is tried alone: those that fail alone are culprits, the others are tried
   together. When even those do not go together, the best of them is kept and the others are postponed.
4. Of more than BLOCKS updates, blocks are left out in turn first, then the members of the block that matters.

Invariants: pure, but for the tries; the same batch in the same order gives the same answer; at most 1 + MAX_TRIES
tries, each of one to three evaluations; when these are spent what was not decided is postponed, but at least one update
is kept or refused, so that the queue always moves. An update that goes all the way alone is never a culprit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dafne_dante.federation.merge import MergeOutcome

__all__ = ["BLOCKS", "MAX_TRIES", "Selection", "select_updates"]

MAX_TRIES = 64
BLOCKS = 16
_WAITS = "waits for the next merge, since this batch did not go together"

Try = Callable[[Sequence[str]], MergeOutcome]
"""What comes of merging the updates of these ids."""


@dataclass(frozen=True)
class Selection:
    """What becomes of a batch.

    Attributes:
        kept: ids to publish when the outcome's step is above 0.
        outcome: of those.
        culprits: id to the reason.
        postponed: id to the reason.
    """

    kept: tuple[str, ...]
    outcome: MergeOutcome
    culprits: dict[str, str] = field(default_factory=dict)
    postponed: dict[str, str] = field(default_factory=dict)


class _Tries:
    """Tries, each made once; None when it would be one more than `limit`."""

    def __init__(self, attempt: Try) -> None:
        self._attempt = attempt
        self._made: dict[tuple[str, ...], MergeOutcome] = {}
        self.limit = MAX_TRIES // 2

    def __call__(self, ids: Sequence[str]) -> MergeOutcome | None:
        key = tuple(ids)
        if key not in self._made and len(self._made) < self.limit:
            self._made[key] = self._attempt(key)
        return self._made.get(key)


def select_updates(ids: Sequence[str], attempt: Try) -> Selection:
    """Which of these updates, one or more, are kept, which are to blame, and which wait."""
    tries, kept, outcome = _Tries(attempt), tuple(ids), attempt(tuple(ids))
    culprits: dict[str, str] = {}
    while outcome.step < 1 and len(kept) > 1:
        found = _culprit(kept, outcome, tries)
        if found is None:
            break
        culprit, without = found
        culprits[culprit] = _blame(outcome)
        kept, outcome = _without(kept, (culprit,)), without
    if outcome.step > 0:
        return Selection(kept, outcome, culprits)
    if len(kept) == 1:
        return Selection((), outcome, {**culprits, kept[0]: outcome.reason})
    tries.limit = MAX_TRIES
    return _one_by_one(kept, outcome, culprits, tries)


def _culprit(kept: tuple[str, ...], outcome: MergeOutcome, tries: _Tries) -> tuple[str, MergeOutcome] | None:
    """By rules 2 and 4 the update to blame, and what comes of the others; None when nobody is."""
    suspects = kept
    while True:
        blocks = [block for block in _blocks(suspects) if len(block) < len(kept)]
        results = [(result, block) for block in blocks if (result := tries(_without(kept, block))) is not None]
        if not results:
            return None
        best, suspects = max(results, key=lambda result: _rank(result[0]))
        if best.step <= outcome.step:
            return None
        if len(suspects) == 1:
            alone = tries(suspects)
            return (suspects[0], best) if alone is not None and alone.step < 1 else None


def _one_by_one(kept: tuple[str, ...], outcome: MergeOutcome, culprits: dict[str, str], tries: _Tries) -> Selection:
    """Rule 3."""
    alone = {one: result for one in kept if (result := tries((one,))) is not None}
    good = tuple(one for one in alone if alone[one].step > 0)
    together = tries(good) if good else outcome
    if good and (together is None or together.step == 0):
        good = (max(good, key=lambda one: _rank(alone[one])),)
        together = alone[good[0]]
    bad = {one: result.reason for one, result in alone.items() if result.step == 0}
    waiting = [one for one in kept if one not in bad and one not in good]
    return Selection(good, together or outcome, {**culprits, **bad}, dict.fromkeys(waiting, _WAITS))


def _blocks(ids: tuple[str, ...]) -> list[tuple[str, ...]]:
    """At most BLOCKS runs of nearly equal length, in order."""
    count = min(BLOCKS, len(ids))
    bounds = [len(ids) * place // count for place in range(count + 1)]
    return [ids[begin:end] for begin, end in pairwise(bounds)]


def _without(ids: tuple[str, ...], left_out: Sequence[str]) -> tuple[str, ...]:
    return tuple(one for one in ids if one not in set(left_out))


def _rank(outcome: MergeOutcome) -> tuple[float, float]:
    return outcome.step, outcome.dice_after.get("mean") or 0.0


def _blame(together: MergeOutcome) -> str:
    fault = next((attempt.fault for attempt in together.attempts if attempt.fault), together.reason)
    return f"with it {fault}; without it the others go further"
