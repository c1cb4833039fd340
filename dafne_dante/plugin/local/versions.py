"""What is known of a site's improved models of one type, as one JSON document.

Terms: a *version* is one improved model, numbered from 1 in the order of keeping; the *chosen* one is what Dafne uses,
0 for the global model; a *step* is the share of a delta that was added.

Invariants: numbers rise and are never used twice; what is chosen is 0 or a version that is there; what is read from
the disk is checked as a stranger's would be.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dafne_dante.errors import StorageError

__all__ = ["LocalState", "LocalVersion", "parse_state", "serialise_state"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,20}")
_MAX_VERSIONS, _MAX_DELTAS, _MAX_TEXT = 100, 1000, 2000


@dataclass(frozen=True)
class LocalVersion:
    """One improved model.

    Attributes:
        number: from 1.
        model: SHA-256 of its file.
        weights: `digest_weights` of it.
        deltas: SHA-256 and step of every delta that leads from the global model to it, the first first.
        base: the global version that they start from.
        created_s: seconds since 1970.
        before, after: mean Dice on held-out cases of what it was compared with, and of it.
        seed: how cases were divided then.
        told: where it comes from, in words.
    """

    number: int
    model: str
    weights: str
    deltas: tuple[tuple[str, float], ...]
    base: str
    created_s: int
    before: float
    after: float
    seed: int
    told: str


@dataclass(frozen=True)
class LocalState:
    """All versions of one type, what is chosen, the newest global version that was seen, and how it came to be."""

    model_type: str
    chosen: int = 0
    newest: int = 0
    seen: str = ""
    status: str = "the global model is used"
    versions: tuple[LocalVersion, ...] = ()

    def find(self, number: int) -> LocalVersion | None:
        """The version of that number."""
        return next((one for one in self.versions if one.number == number), None)

    @property
    def current(self) -> LocalVersion | None:
        """What Dafne uses; None for the global model."""
        return self.find(self.chosen)

    def is_behind(self, newest: str) -> bool:
        """Whether a global version is newer than all that the chosen version was compared with."""
        return self.current is not None and newest.isdecimal() and int(newest) > int(self.seen or 0)

    def with_version(self, version: LocalVersion, *, keep: int) -> "LocalState":
        """With one more version, which is chosen; of the others the newest `keep` stay."""
        versions = (*self.versions[-keep:], version) if keep else (version,)
        return replace(self, versions=versions, chosen=version.number, newest=version.number, status=version.told)


def serialise_state(state: LocalState) -> bytes:
    """The document."""
    return (json.dumps(asdict(state), indent=1, sort_keys=True) + "\n").encode()


def parse_state(content: bytes) -> LocalState:
    """Read it back; StorageError for anything that `serialise_state` would not have written."""
    try:
        found = json.loads(content)
        versions = tuple(_version(one) for one in found["versions"])
        state = LocalState(
            _text(found["model_type"]), _whole(found["chosen"]), _whole(found["newest"]), _number(found["seen"]),
            _text(found["status"]), versions,
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise _damaged() from error
    numbers = [one.number for one in versions]
    rising = numbers == sorted(set(numbers)) and len(numbers) <= _MAX_VERSIONS
    if not rising or (state.chosen and state.current is None) or max([0, *numbers]) > state.newest:
        raise _damaged()
    return state


def _version(found: Mapping[str, Any]) -> LocalVersion:
    deltas = tuple((_digest(sha256), _share(step)) for sha256, step in found["deltas"])
    if not 1 <= len(deltas) <= _MAX_DELTAS:
        raise ValueError("deltas")
    return LocalVersion(
        _whole(found["number"], 1), _digest(found["model"]), _digest(found["weights"]), deltas, _number(found["base"]),
        _whole(found["created_s"]), _share(found["before"]), _share(found["after"]), _whole(found["seed"]),
        _text(found["told"]),
    )  # fmt: skip


def _whole(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 1 << 63:
        raise ValueError("number")
    return value


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError("share")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_TEXT:
        raise ValueError("text")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("digest")
    return value


def _number(value: Any) -> str:
    if not isinstance(value, str) or (value and not _NUMBER.fullmatch(value)):
        raise ValueError("version")
    return value


def _damaged() -> StorageError:
    return StorageError(
        "expected the list of this site's improved models, found a damaged one; the global model can be used, "
        "and `dafne-dante local forget TYPE` begins anew"
    )
