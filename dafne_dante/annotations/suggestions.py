"""Which label of a model a name of a site probably stands for, for a person to confirm; nothing is mapped by this.

Terms: *likeness* is from 0 to 1; a suggestion is *clear* when no other label is as like.

Invariants
- A name is suggested only for labels of its own side, or of none where it has none: a left structure never for a
  right one, whatever the language and the place of the word.
- Words that mean opposites (medialis and lateralis) are never taken for each other, however like they are.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from dafne_dante.annotations.labels import SIDES, words_of

__all__ = ["Suggestion", "hint", "suggest_labels"]

_LEAST, _CLEARLY = 0.7, 0.05
_AT_MOST = 3
_GLUED = ("left", "right", "links", "rechts")
_OPPOSITES = (
    ("medi", "lateral"), ("anter", "poster"), ("super", "infer"), ("intern", "extern"), ("long", "brev"),
    ("major", "minor"), ("maxim", "minim"), ("maxim", "medi"), ("minim", "medi"), ("upper", "lower"),
    ("proximal", "distal"), ("dorsal", "ventral"), ("abduct", "adduct"), ("flexor", "extensor"),
)  # fmt: skip


@dataclass(frozen=True)
class Suggestion:
    """The labels that a name is like, the likest first; none when it is like none."""

    name: str
    labels: tuple[str, ...]
    clear: bool


def suggest_labels(names: Iterable[str], labels: Sequence[str]) -> tuple[Suggestion, ...]:
    """A suggestion for each name, in their order."""
    return tuple(_suggest(name, labels) for name in names)


def hint(names: Iterable[str], labels: Sequence[str]) -> str:
    """The suggestions in words: "hepar: perhaps liver"; empty when there is none."""
    found = [one for one in suggest_labels(names, labels) if one.labels]
    return ", ".join(f"{one.name}: perhaps {' or '.join(one.labels)}" for one in found)


def _suggest(name: str, labels: Sequence[str]) -> Suggestion:
    rated = sorted(((_likeness(name, label), label) for label in labels), key=lambda one: (-one[0], one[1]))
    rated = [one for one in rated if one[0] >= _LEAST][:_AT_MOST]
    clear = bool(rated) and (len(rated) == 1 or rated[0][0] - rated[1][0] >= _CLEARLY)
    return Suggestion(name, tuple(label for _, label in rated), clear)


def _likeness(name: str, label: str) -> float:
    """0 where the sides differ or the words mean opposites."""
    if _sides(name) != _sides(label):
        return 0.0
    one, other = _core(name), _core(label)
    if not one or not other or _are_opposites(one, other):
        return 0.0
    if sorted(one) == sorted(other):
        return 1.0
    if _shortens(one, other) or _shortens(other, one):
        return 0.9
    # The order of the words says nothing: "femoris, rectus".
    return max(
        SequenceMatcher(None, " ".join(first), " ".join(second)).ratio()
        for first, second in ((one, other), (sorted(one), sorted(other)))
    )


def _sides(name: str) -> frozenset[str]:
    """Every side that any word of the name tells, also one that is glued to another word."""
    found = {SIDES[word] for word in words_of(name) if word in SIDES}
    for word in words_of(name):
        found |= {SIDES[end] for end in _GLUED if word != end and (word.startswith(end) or word.endswith(end))}
    return frozenset(found)


def _core(name: str) -> list[str]:
    """The words without sides and accents; a number at the end of a word is a word."""
    plain = unicodedata.normalize("NFKD", " ".join(word for word in words_of(name) if word not in SIDES))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.findall(r"\d+|[^\W\d]+", letters)


def _are_opposites(one: Sequence[str], other: Sequence[str]) -> bool:
    if {word for word in one if word.isdigit()} != {word for word in other if word.isdigit()}:
        return True  # the vertebra L1 is not L2
    return any(
        (_begins(one, first) and _begins(other, second)) or (_begins(one, second) and _begins(other, first))
        for first, second in _OPPOSITES
    )


def _begins(words: Sequence[str], stem: str) -> bool:
    return any(word.startswith(stem) for word in words)


def _shortens(short: Sequence[str], long: Sequence[str]) -> bool:
    """Whether each word of the one begins its counterpart ("vast med"), or the one is the other's initials ("VM")."""
    if len(short) == 1 and len(long) > 1 and short[0] == "".join(word[0] for word in long):
        return True
    return len(short) == len(long) and all(whole.startswith(part) for part, whole in zip(short, long, strict=True))
