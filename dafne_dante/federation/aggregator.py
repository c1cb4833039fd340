"""The seam at the operator: what turns the queue of a depot into the next version.

Terms: a `Depot` is where versions and uploads are, whichever way they came: over HTTP, in a folder, from a bundle or
over Flower. An *aggregator* merges all that waits in one, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dafne_dante.annotations.case import Case
from dafne_dante.config import Settings
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.operator import MergeOptions, MergeReport, merge_pending

__all__ = ["Aggregator", "OperatorMerge"]


class Aggregator(Protocol):
    """Merges what waits in a depot; raises as `merge_pending`."""

    def __call__(self, depot: Depot) -> MergeReport:
        """What the merge came to."""


@dataclass(frozen=True, eq=False)
class OperatorMerge:
    """The aggregator of an operator: `merge_pending` with all but the depot."""

    model_type: str
    validation: Sequence[Case]
    settings: Settings
    options: MergeOptions = field(default_factory=MergeOptions)

    def __call__(self, depot: Depot) -> MergeReport:
        """Merge everything that waits in `depot`; errors as `merge_pending`."""
        return merge_pending(depot, self.model_type, self.validation, self.settings, self.options)
