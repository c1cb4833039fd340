"""What an operator's ledger says of an update, and of a version.

Terms: an *entry* is one update that was published or refused; a *publication* is one version that this operator
published: by a merge, by a rollback, as a model that was handed in, or rebuilt without some updates. `previous` of a
publication is the version whose weights it starts from, which for a rollback is the version that it brings back: so a
version's *ancestors* are all whose updates its weights hold.

Invariants: frozen values; read strictly, whatever an older version of dafne-dante left out has its empty value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

__all__ = ["KINDS", "Entry", "Publication", "parse_entry", "parse_publication"]

KINDS = ("merge", "rollback", "handed in", "rebuilt")


@dataclass(frozen=True)
class Entry:
    """One update.

    Attributes:
        base_sha256: its base.
        public_key: the site's; "" for a full model, which nobody signed.
        upload, content_sha256: the file that it came in; such a file is done with, should it still be in the queue.
        version: the one that first held it, "" when it was refused.
        username: the sender as the server knows it, "" when the server does not say.
        cases: labelled cases behind it, as the site says; 0 when it does not.
        method: how it was trained, as the site says; "full model" for one.
        reason: why it was refused, "" when it was published.
        withdrawn: the minute (UTC) in which its site withdrew it, "" when it did not.
        again: versions that were rebuilt with it.
        site: of a full model, whom it counts for: a trusted key, or the user name; "" for a signed update.
    """

    base_sha256: str
    public_key: str
    upload: str
    content_sha256: str
    version: str = ""
    username: str = ""
    cases: int = 0
    method: str = ""
    reason: str = ""
    withdrawn: str = ""
    again: tuple[str, ...] = ()
    site: str = ""

    def is_first_in(self, version: str) -> bool:
        """Whether its own place in a lineage is this version."""
        return version != "" and version in (self.version, *self.again)

    def settled_in(self, version: str) -> "Entry":
        """After the version that holds it was published; its first time, or once more."""
        if not self.version or self.version == version:
            return replace(self, version=version)
        return replace(self, again=tuple(dict.fromkeys((*self.again, version))))


@dataclass(frozen=True)
class Publication:
    """One version that was published.

    Attributes:
        kind: one of KINDS.
        created: UTC to the second.
        previous: the version whose weights these start from; "" when unknown.
        number: of the signed release, 0 when it was not signed.
        step: the step of the merge; 0 for a rollback.
        dice_before, dice_after: on the operator's cases; empty for a rollback.
        validation_cases: how many those were.
        intended_use, licence: the operator's words for the model card.
    """

    kind: str
    created: str
    previous: str = ""
    number: int = 0
    step: float = 0.0
    dice_before: Mapping[str, float | None] = field(default_factory=dict)
    dice_after: Mapping[str, float | None] = field(default_factory=dict)
    validation_cases: int = 0
    intended_use: str = ""
    licence: str = ""


def parse_entry(document: Mapping[str, Any]) -> Entry:
    """An entry as JSON has it; ValueError or TypeError for anything else."""
    _check(document, Entry)
    again = document.get("again", [])
    if not all(isinstance(version, str) for version in again):
        raise ValueError("again")
    return Entry(**{**document, "cases": int(document.get("cases", 0)), "again": tuple(again)})


def parse_publication(document: Mapping[str, Any]) -> Publication:
    """A publication as JSON has it; ValueError or TypeError for anything else."""
    _check(document, Publication)
    publication = Publication(**document)
    for dice in (publication.dice_before, publication.dice_after):
        if not all(value is None or isinstance(value, int | float) for value in dice.values()):
            raise ValueError("dice")
    if publication.kind not in KINDS:
        raise ValueError("kind")
    return publication


_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    Mapping[str, float | None]: (dict,),
    tuple[str, ...]: (list, tuple),
}


def _check(document: Mapping[str, Any], kind: type[Entry] | type[Publication]) -> None:
    for item in fields(kind):
        if item.name in document and not isinstance(document[item.name], _TYPES[item.type]):
            raise ValueError(item.name)
