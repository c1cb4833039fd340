"""Everything that a report tells, before it becomes a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from dafne_dante.models.global_model import GlobalModel
from dafne_dante.plugin.division import Division
from dafne_dante.plugin.report.measured import HeldOutCase
from dafne_dante.plugin.summary import ImprovementSummary
from dafne_dante.training.history import EpochRecord

__all__ = ["ReportFacts"]


@dataclass(frozen=True, eq=False)
class ReportFacts:
    """What an improvement was made from and what it came to.

    Attributes:
        summary: the same figures as in summary.json.
        model_type: the type's name on the server.
        base: the model that was to be improved.
        division: what was learned from and what was held out.
        history: one record an epoch; with several folds their mean.
        held_out: both models on every held-out case.
        delta: the bytes of update.delta.
        upload: whether it was to be sent when the gate passes.
    """

    summary: ImprovementSummary
    model_type: str
    base: GlobalModel
    division: Division
    history: Sequence[EpochRecord]
    held_out: Sequence[HeldOutCase]
    delta: bytes
    upload: bool
