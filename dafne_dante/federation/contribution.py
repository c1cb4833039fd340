"""An admitted update as merging sees it.

Terms: a contribution's *site* is its public key; its *group* is the base that it was made from; its *age* is how many
versions that base lies behind the current model; it is *published* when it already moved the current model, which an
operator keeps listing for as long as updates of its group may come in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dafne_dante.delta.decode import Delta
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.errors import DeltaValueError

__all__ = ["Contribution", "contribution_from"]


@dataclass(frozen=True, eq=False)
class Contribution:
    """One admitted update.

    Attributes:
        update_id: as in its manifest.
        public_key: of the site.
        base_sha256: the group.
        cases: labelled cases behind it, 1 or more.
        updates: weight name to update; may read from disk when asked, then memory stays constant in their number.
        age: 0 when its base is the current model; one value for a group.
        published: it already moved the current model.

    Raises:
        DeltaValueError: cases or age out of bounds.
    """

    update_id: str
    public_key: str
    base_sha256: str
    cases: int
    updates: Mapping[str, WeightUpdate] = field(repr=False)
    age: int = 0
    published: bool = False

    def __post_init__(self) -> None:
        if self.cases < 1 or self.age < 0:
            raise DeltaValueError(f"expected 1 case or more and an age of 0 or more, found {self.cases} and {self.age}")


def contribution_from(
    delta: Delta, *, updates: Mapping[str, WeightUpdate] | None = None, age: int = 0, published: bool = False
) -> Contribution:
    """An admitted delta as a contribution; its updates are taken into memory, unless they are given from elsewhere.

    Age and published are as in Contribution.
    """
    return Contribution(
        update_id=delta.manifest.update_id,
        public_key=delta.public_key,
        base_sha256=delta.manifest.base_sha256,
        cases=delta.manifest.cases,
        updates={update.weight: update for update in delta.updates} if updates is None else updates,
        age=age,
        published=published,
    )
