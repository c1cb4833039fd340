"""What a case store answers with."""

from dataclasses import dataclass
from typing import Literal

from dafne_dante.annotations.store.contents import CaseHeader

__all__ = ["Added", "Damage", "Listing", "Report", "StoredCase"]


@dataclass(frozen=True)
class StoredCase:
    """A case in the store, without its voxels."""

    header: CaseHeader
    file_bytes: int

    @property
    def case_id(self) -> str:
        """Its pseudonym."""
        return self.header.case_id

    @property
    def saved_ns(self) -> int:
        """When this version was saved, nanoseconds since 1970."""
        return self.header.saved_ns


@dataclass(frozen=True)
class Damage:
    """A case that cannot be read, and why."""

    case_id: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """What the index holds, each by case_id."""

    cases: tuple[StoredCase, ...]
    damaged: tuple[Damage, ...]


@dataclass(frozen=True)
class Added:
    """What adding a case did.

    Attributes:
        case_id: the case.
        outcome: "new", "replaced" an older version, or "unchanged": the store had exactly this.
        dropped: cases that are gone now, because the store is limited; oldest first.
    """

    case_id: str
    outcome: Literal["new", "replaced", "unchanged"]
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What verifying found.

    Attributes:
        sound: cases that are whole, voxel for voxel as they were added.
        damaged: those that are not, and files of cases that the index does not know and that cannot be read.
        index_fault: what SQLite finds wrong with the index; empty when nothing is.
    """

    sound: tuple[str, ...]
    damaged: tuple[Damage, ...]
    index_fault: str

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.damaged or self.index_fault)
